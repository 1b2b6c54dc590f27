"""Write digits.js, the digits of index.html, from ../data/mnist.npz.

DIGITS is a PNG of 16 greys, one digit in each row of 784 pixels, and LABELS a text of as many
digits. It is a script, because a page that is opened from disk may read no other files.

    python docs/make_digits.py
"""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
N = 6000


def digits_as_script(path=HERE.parent / "data/mnist.npz"):
    """Return the text of digits.js."""
    with np.load(path) as file:
        images, labels = file["x_train"][:N].reshape(N, -1), file["y_train"][:N]
    picture = Image.fromarray(np.rint(images / 17).astype(np.uint8), "P")
    picture.putpalette([17 * grey for grey in range(16) for _ in "rgb"])
    png = io.BytesIO()
    picture.save(png, "PNG", bits=4, optimize=True)
    lines = [
        f"// The first {N:,} digits of MNIST, Y. LeCun, C. Cortes, C. J. C. Burges, CC BY-SA 3.0",
        "// (https://creativecommons.org/licenses/by-sa/3.0/), in 16 greys: one digit in each row",
        "// of a PNG; and their labels. Written by make_digits.py.",
        f'const DIGITS = "data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}";',
        f'const LABELS = "{"".join(map(str, labels))}";',
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    (HERE / "digits.js").write_bytes(digits_as_script().encode())
