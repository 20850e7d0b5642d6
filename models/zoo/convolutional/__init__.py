"""Convolutional networks at 32 x 32 (and the perceptron that they are compared with), one file a paper.

Each keeps its paper's design at widths that train in under a minute on one core; its docstring says what is
modern instead of the paper's. All take pixel_values float32 [batch, 1, 32, 32] and give logits float32
[batch, classes], and all trace with torch.fx, so that structured pruning can follow their channels.
"""
