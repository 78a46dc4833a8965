"""A small convolutional network for handwritten digits of 8x8 pixels.

TorchServe's eager mode builds the one class of this file without arguments, so the defaults are the architecture.
"""

from torch import Tensor, nn


class DigitClassifier(nn.Module):
    """Gives logits over the ten digits.

    Args:
        channels: feature maps of the first convolution; the second has twice as many.
        labels: number of classes.
        dropout: share of activations dropped in training.
    """

    input_size = (8, 8)  # height, width: pictures are resized to it
    max_value = 16.0  # the brightest pixel; the darkest is 0

    def __init__(self, channels: int = 16, labels: int = 10, dropout: float = 0.3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * channels * 4 * 4, labels),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Score images of shape (N, 8, 8), values 0 to 16: logits of shape (N, labels)."""
        logits: Tensor = self.layers(pixels.unsqueeze(1) / self.max_value)
        return logits
