"""A new user's visit: JupyterLab in a real browser, Run All, and a moved slider."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from test_notebooks import STEMS, TINY

import helpers as h

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not (DRIVER and BROWSER), reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the repository whose notebooks have small parameters; its address."""
    root = tmp_path_factory.mktemp("visit")
    (root / "notebooks").mkdir()
    for name in ("helpers.py", "report.py", "activations.py", "data"):
        os.symlink(h.ROOT / name, root / name)
    for stem in STEMS:
        notebook = nbformat.read(h.ROOT / "notebooks" / f"{stem}.ipynb", 4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            if "parameters" in cell.metadata.get("tags", []):
                small = TINY[stem] | {"OUTPUT": str(root / "figures")}
                cell.source += "".join(f"\n{name} = {value!r}" for name, value in small.items())
        nbformat.write(notebook, root / "notebooks" / f"{stem}.ipynb")
    address = "http://127.0.0.1:8911"
    options = ["--no-browser", "--port=8911", "--IdentityProvider.token=", "--allow-root"]
    options += ["--expose-app-in-browser", f"--ServerApp.root_dir={root}"]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(root / "config")}
    environment["OMP_NUM_THREADS"] = "1"  # beside a browser, threads wait for each other
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(root / "settings")
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(root / "workspaces")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api")
                break
            except OSError:
                time.sleep(0.5)
        yield address, root
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--window-size=1280,1600", f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


def execute(browser, command):
    """Run a command of JupyterLab and wait until it is done."""
    return browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "const run = window.jupyterapp.commands.execute(arguments[0]);"
        "run.then(() => done('done'), error => done(`${error}`));",
        command,
    )


def open_and_run(browser, lab, stem):
    from selenium.webdriver.support.ui import WebDriverWait

    address, root = lab
    browser.get(f"{address}/lab/tree/notebooks/{stem}.ipynb?reset")  # nothing else open
    wait = WebDriverWait(browser, 120)
    panel = "const panel = window.jupyterapp?.shell.currentWidget; const c = panel?.sessionContext;"
    idle = "return c?.session?.kernel?.status === 'idle' && c.session.kernel.connectionStatus === "
    wait.until(lambda b: b.execute_script(f"{panel} {idle} 'connected'"))
    execute(browser, "notebook:run-all-cells")
    counts = "panel.content.widgets.filter(w => w.model.type === 'code').map(w => w.prompt)"
    finished = f"{panel} return {counts}.every(prompt => Number(prompt) > 0)"
    wait.until(lambda b: b.execute_script(finished))
    execute(browser, "docmanager:save")
    return nbformat.read(root / "notebooks" / f"{stem}.ipynb", 4)


@pytest.mark.parametrize("stem", STEMS)
def test_run_all(browser, lab, stem):
    notebook = open_and_run(browser, lab, stem)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert (lab[1] / "figures" / f"{stem}.json").exists()
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/{stem}.png")


def test_a_moved_slider_moves_the_bars(browser, lab):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    open_and_run(browser, lab, "1_theorem")
    find = "return [...document.querySelectorAll('.jupyter-widgets img')].map(i => i.src)[0]"
    handle = "return document.querySelector('.jupyter-widgets .noUi-handle')"
    show = "document.querySelector('.jupyter-widgets').scrollIntoView()"
    wait = WebDriverWait(browser, 30)
    browser.execute_script(
        "const cell = window.jupyterapp.shell.currentWidget.content;"
        "cell.activeCellIndex = cell.widgets.findIndex("
        "c => c.model.sharedModel.getSource().includes('interact('));"
    )
    execute(browser, "notebook:run-cell")
    wait.until(lambda b: b.execute_script(handle) and b.execute_script(find))
    browser.execute_script(show)
    before = browser.execute_script(find)
    browser.execute_script(handle).send_keys(Keys.PAGE_UP)
    wait.until(lambda b: b.execute_script(find) not in (None, before))
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/widget.png")
    assert browser.find_elements(By.CSS_SELECTOR, ".jupyter-widgets .widget-readout")
