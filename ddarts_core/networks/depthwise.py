"""Depthwise convolutions whose gradients are made of convolutions that every CPU library computes fast.

oneDNN runs the forward pass of a depthwise convolution fast with any kernel and dilation. Its backward pass is fast
only with kernels of at most three columns, without dilation, and on images with more rows than the kernel's less one.
Otherwise it is twenty to fifty times slower, and takes a workspace of 256 numbers per weight. The gradients here are
exact rewritings:

- the gradient of the input at stride 1 is the convolution of the output's gradient with the kernel turned around;
- dilation 2 at stride 2 reads only every second pixel: it is a dense convolution of the subsampled image;
- dilation 2 at stride 1 never mixes even and odd pixels: rows go to the batch by parity, columns to the channels, and
  the convolution that is left is dense;
- five columns of the weights' gradient are twice three columns, of the image padded on one side only;
- rows of zeros below a small image and below the output's gradient add nothing to the weights' gradient;
- weights further from the centre of a kernel than an image is wide meet nothing but padding, so they are left out: with
  padding wider than the image, even oneDNN's forward pass is slow.

On other devices the library's own gradient is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tensors.devices import rewrites_gradients


def convolve(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Depthwise convolution, [batch, channels, h, w] with odd kernels [channels, 1, k, k], padded to keep the size."""
    weight = _reaching(weight, x, dilation)
    padding = dilation * (weight.shape[2] // 2)
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))


def input_gradient(gradient: Tensor, weight: Tensor, x: Tensor, stride: int, dilation: int) -> Tensor:
    """Gradient of `convolve` with respect to `x`, of which only the shape and the layout are read."""
    if not rewrites_gradients(x) or (stride > 1 and stride != dilation):
        padding = dilation * (weight.shape[2] // 2)
        return _library(gradient, x, weight, stride, (padding, padding), dilation, of_input=True)
    turned = weight.flip(2, 3)
    if stride == 1:
        return convolve(gradient, turned, 1, dilation)
    spread = torch.zeros_like(x)
    spread[:, :, ::stride, ::stride] = convolve(gradient, turned, 1, 1)
    return spread


def weight_gradient(gradient: Tensor, weight: Tensor, x: Tensor, stride: int, dilation: int) -> Tensor:
    """Gradient of `convolve` with respect to `weight`, of which only the shape is read."""
    kernel, inner = weight.shape[2], _reaching(weight, x, dilation)
    if kernel == 5 and inner is not weight:  # of seven columns the library's gradient is taken, which rounds otherwise
        return F.pad(weight_gradient(gradient, inner, x, stride, dilation), [1] * 4)
    if not rewrites_gradients(x) or dilation > 2:
        padding = dilation * (kernel // 2)
        return _library(gradient, x, weight, stride, (padding, padding), dilation, of_input=False)
    if dilation == 2 and stride == 2:
        return _dense_weight_gradient(gradient, weight, x[:, :, ::2, ::2], 1)
    if dilation == 2:
        both = torch.cat([weight, weight])
        return _dense_weight_gradient(_phases(gradient), both, _phases(x), 1).reshape(2, *weight.shape).sum(0)
    return _dense_weight_gradient(gradient, weight, x, stride)


def _reaching(weight: Tensor, x: Tensor, dilation: int) -> Tensor:
    """The centres of kernels, at least 3x3, without the weights that reach no pixel of an image from any other."""
    radius = weight.shape[2] // 2
    reach = max(1, (max(x.shape[2:]) - 1) // dilation)
    if radius <= reach or not rewrites_gradients(x):
        return weight
    kept = slice(radius - reach, radius + reach + 1)
    return weight[:, :, kept, kept]


def _dense_weight_gradient(gradient: Tensor, weight: Tensor, x: Tensor, stride: int) -> Tensor:
    kernel = weight.shape[2]
    middle = kernel // 2
    gradient, x = _tall(gradient, x, kernel, stride)
    if kernel != 5:
        return _library(gradient, x, weight, stride, (middle, middle), 1, of_input=False)
    columns = weight[:, :, :, :3]
    left = _library(gradient, F.pad(x, (2, 0)), columns, stride, (middle, 0), 1, of_input=False)
    right = _library(gradient, F.pad(x, (0, 2)), columns, stride, (middle, 0), 1, of_input=False)
    return torch.cat([left, right[:, :, :, 1:]], dim=3)


def _tall(gradient: Tensor, x: Tensor, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
    """Both tensors with rows of zeros below, as many as an image lacks for a fast kernel."""
    missing = kernel + stride - 1 - x.shape[2]
    if missing <= 0:
        return gradient, x
    x = F.pad(x, (0, 0, 0, missing))
    height = (x.shape[2] - 1) // stride + 1
    return F.pad(gradient, (0, 0, 0, height - gradient.shape[2])), x


def _phases(x: Tensor) -> Tensor:
    """[batch, channels, h, w] -> [2 batch, 2 channels, h / 2, w / 2]: rows by parity, columns by parity.

    Odd sizes are padded with zeros, which add nothing to a sum of products.
    """
    batch, channels, height, width = x.shape
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
        height, width = x.shape[2:]
    pixels = x.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2 * 2 * channels)
    rows = pixels.transpose(1, 2).reshape(2 * batch, height // 2, width // 2, 2 * channels)
    return rows.permute(0, 3, 1, 2)


def _library(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    *,
    of_input: bool,
) -> Tensor:
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        [stride, stride],
        list(padding),
        [dilation, dilation],
        False,
        [0, 0],
        weight.shape[0],
        [of_input, not of_input, False],
    )
    return found[0] if of_input else found[1]
