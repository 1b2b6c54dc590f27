"""check.py tells runs apart, and record.py puts outputs into their places."""

import nbformat
import numpy as np
import pandas as pd
import pytest
from check import check_folder, differing, of_means, of_rows
from matplotlib import pyplot as plt
from record import with_outputs

RECORD = pd.DataFrame(
    {
        "loss": ["B", "B", "B", "C", "C", "C", "one"],
        "seed": [0, 1, 2, 0, 1, 2, 0],
        "redundancy": [1617.0, 1815.0, 1916.0, 29.0, 27.6, 28.5, 50.0],
        "L0": [17.7, 16.9, 17.1, 17.6, 17.8, 17.1, 10.0],
    }
)


@pytest.mark.parametrize(
    "loss, column, small, large",
    [
        ("B", "redundancy", -140, -295),  # one standard deviation is 153
        ("C", "L0", 0.35, 1.5),  # 2% are .35, one standard deviation .36
        ("one", "L0", 0.9, 1.1),  # one seed: 10%
    ],
)
def test_means_differ_beyond_the_rule(loss, column, small, large):
    for by, differ in ((small, []), (large, [(loss, column)])):
        run = RECORD.sample(frac=1, random_state=0)
        run.loc[run["loss"] == loss, column] += by
        assert [*differing(of_means(run, RECORD)).index] == differ


def test_rows_differ_by_more_than_a_hundredth_or_if_one_is_lacking():
    swapped = RECORD.assign(seed=[1, 0, *RECORD["seed"][2:]])
    assert len(differing(of_means(swapped, RECORD))) == 0
    assert len(differing(of_rows(swapped, RECORD))) == 4
    assert len(differing(of_rows(RECORD[1:], RECORD))) == 2
    assert len(differing(of_rows(RECORD.assign(L0=RECORD["L0"] * 1.009), RECORD))) == 0


def test_folders_differ_by_a_number_a_table_a_picture_or_a_line(tmp_path):
    run, record = tmp_path / "run", tmp_path / "record"
    grey = np.full((80, 160, 3), 0.8)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")])
    for folder in (run, record):
        folder.mkdir()
        RECORD.to_csv(folder / "a.csv", index=False)
        plt.imsave(folder / "a.png", grey if folder == run else grey[::8, ::8])

    def print_into_run(text):
        notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text=text)]
        nbformat.write(notebook, run / "a.ipynb")

    (record / "printed.txt").write_text("a: L0 40.0 ± # (17.2)")
    for text, differ in (("40.4 ± 3.2 (17.2)", 0), ("41.6 ± 3.2 (17.2)", 1), ("40.4 (17.2)", 1)):
        print_into_run(f"L0   {text}")
        assert check_folder(run, record) == differ
    print_into_run("L0 40.0 ± 1.0 (17.2)")
    grey[:8, :8] = 0
    plt.imsave(run / "a.png", grey)
    assert check_folder(run, record) == 1
    (run / "a.png").unlink()
    assert check_folder(run, record) == 1
    RECORD.replace(50.0, 51.0).to_csv(run / "a.csv", index=False)
    assert check_folder(run, record) == 2
    RECORD.to_csv(run / "b.csv", index=False)
    assert check_folder(run, record) == 3


def test_outputs_are_put_into_the_notebook_whose_code_ran():
    result = nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=4)
    parameter = nbformat.v4.new_code_cell("A = 2", metadata={"tags": ["injected-parameters"]})
    ran = [nbformat.v4.new_code_cell("A = 1", execution_count=1), parameter]
    ran += [nbformat.v4.new_code_cell("A", execution_count=4, outputs=[result])]
    text = nbformat.v4.new_markdown_cell("text, written after the run")
    cells = [nbformat.v4.new_code_cell("A = 1"), text, nbformat.v4.new_code_cell("A")]
    executed = nbformat.v4.new_notebook(cells=ran)
    found = with_outputs(nbformat.v4.new_notebook(cells=cells), executed).cells
    assert [cell.source for cell in found] == ["A = 1", text.source, "A"]
    assert found[2].outputs[0].data["text/plain"] == "2"
    assert found[2].execution_count == found[2].outputs[0].execution_count == 2
    cells[2].source = "A + 1"
    with pytest.raises(ValueError, match="changed"):
        with_outputs(nbformat.v4.new_notebook(cells=cells), executed)
