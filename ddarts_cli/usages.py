"""Code for the card of an export that uses its files; a test runs each block as it is printed."""

from __future__ import annotations

import shlex

from ddarts_core.exports.preprocessing import Preprocessing

WITH_DDARTS = """With ddarts, on pictures of any size (on the command line: `ddarts predict . image.png`):

```python
from ddarts import load_export

(answers,) = load_export(".").classify(["image.png"], top=3)
for name, probability in answers:
    print(f"{name}: {probability:.1%}")
```
"""

PROGRAM = """As a program of torch.export, on inputs that are prepared already:

```python
import torch

logits = torch.export.load("model.pt2").module()(images)
```
"""

SERVED = (
    "Its input: images of 0..1, or pictures of any size as pixels of 0..255, paths, bytes or data URIs; it "
    "answers with logits in the order of the classes."
)

_MLFLOW = """
As a service of MLflow on this machine, where MLFLOW_TRACKING_URI names the store that it was registered in:

    {command}

It answers with logits to pictures of any size:

```python
import base64
import json
from urllib.request import Request, urlopen

with open("image.png", "rb") as file:
    picture = "data:image/png;base64," + base64.b64encode(file.read()).decode()
asked = json.dumps({{"inputs": [picture]}}).encode()
request = Request("http://127.0.0.1:{port}/invocations", asked, {{"Content-Type": "application/json"}})
with urlopen(request) as answer:
    (logits,) = json.load(answer)["predictions"]
with open("preprocessing.json", encoding="utf-8") as file:
    classes = json.load(file)["classes"]
print(classes[logits.index(max(logits))])
```
"""

#: Of the service that a card starts: 5000 is where MLflow's own pages are.
PORT = 5001

_ONNX = """Without ddarts, with `pip install onnxruntime numpy Pillow`:

```python
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

with open("preprocessing.json", encoding="utf-8") as file:
    setup = json.load(file)


def prepared(path):
    image = Image.open(path)
{reading}
{square}
    pixels = np.asarray(image, dtype=np.float32) / 255
    return pixels[None] if setup["mode"] == "L" else pixels.transpose(2, 0, 1)


session = onnxruntime.InferenceSession("model.onnx")
images = np.stack([prepared("image.png")])
(logits,) = session.run(["logits"], {{"images": images}})
shares = np.exp(logits[0] - logits[0].max())
for place in np.argsort(-shares)[:3]:
    print(f"{{setup['classes'][place]}}: {{shares[place] / shares.sum():.1%}}")
```
"""

_UPRIGHT = """    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(int) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    image = image.convert(setup["mode"])"""

_SQUARE = """    size, side = setup["image_size"], min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    if image.size != (size, size):
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box)"""

_CENTRE = """    size, short, side = setup["image_size"], setup["shorter_side"], min(image.size)
    image = image.resize([int(short * length / side) for length in image.size], Image.Resampling.BILINEAR)
    left, top = (round((length - size) / 2) for length in image.size)
    image = image.crop((left, top, left + size, top + size))"""


def with_onnxruntime(setup: Preprocessing) -> str:
    """A program that asks an exported ONNX model, and needs neither ddarts nor torch for that."""
    plain = '    image = image.convert(setup["mode"])'
    if setup.margin == 1:
        return _ONNX.format(reading=_UPRIGHT, square=_SQUARE)
    return _ONNX.format(reading=plain, square=_CENTRE).replace("Image, ImageOps", "Image")


def serve(model: str) -> list[str]:
    """The words of the command that serves a registered model to this machine alone."""
    return ["mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local", "--port", str(PORT)]


def with_mlflow(model: str) -> str:
    """How a registered model is served, and asked from Python without any package."""
    return _MLFLOW.format(command=shlex.join(serve(model)), port=PORT)
