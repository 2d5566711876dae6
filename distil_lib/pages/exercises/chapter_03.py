"""The exercises of chapter 3, on the student."""

from distil_lib.pages.exercises import Exercise

BERT, ONE_STUDENT = (30_522, 768, 6), (8192, 256, 3)  # V, H and layers


def _layer(width: int) -> int:
    """Attention, feed-forward and two LayerNorms."""
    return 12 * width**2 + 13 * width


def _parameters(V: int, H: int, layers: int) -> int:
    """Of DistilBERT with its head and 512 positions."""
    embeddings, head = V * H + 512 * H + 2 * H, H**2 + 3 * H + V
    return embeddings + layers * _layer(H) + head


def _operations(width: int, layers: int, length: int = 128) -> int:
    """Of the layers, for a token of a sequence of this length."""
    return layers * (24 * width**2 + 4 * length * width)


EXERCISES = {
    "ex-03-1": Exercise(
        answer=[0.25, 0.25, 0.5],
        mistakes={
            "You kept the exchange of the last two coordinates. Now the query is the vector "
            "itself, times half of ln 2.": [0.25, 0.5, 0.25],
            "You forgot to divide the scores by the root of 4.": [1 / 6, 1 / 6, 4 / 6],
            "These are parts. A softmax divides them by their sum.": [1, 1, 2],
        },
    ),
    "ex-03-2": Exercise(
        answer=_parameters,
        mistakes={
            "You counted the word table twice: the head uses the same matrix. It adds only its "
            "own map, its LayerNorm and V biases.": lambda V, H, layers: (
                _parameters(V, H, layers) + V * H
            ),
            "This is the encoder alone. Add the head: a map from H to H, a LayerNorm, V biases.": (
                lambda V, H, layers: _parameters(V, H, layers) - H**2 - 3 * H - V
            ),
            "You forgot the V biases of the head.": lambda V, H, layers: (
                _parameters(V, H, layers) - V
            ),
            "You forgot the LayerNorm of the embeddings: 2 H numbers.": (
                lambda V, H, layers: _parameters(V, H, layers) - 2 * H
            ),
            "You counted token types: DistilBERT has none.": lambda V, H, layers: (
                _parameters(V, H, layers) + 2 * H
            ),
        },
        inputs=lambda: [BERT, ONE_STUDENT],
        tolerance=1e-9,
    ),
    "ex-03-3": Exercise(
        answer=_operations(576, 12) / _operations(768, 6),
        mistakes={
            "You left out attention's two products over all tokens, 4 L H a layer.": (
                12 * 576**2 / (6 * 768**2)
            ),
            "This is the quotient of the layers' parameters. Count operations.": (
                12 * _layer(576) / (6 * _layer(768))
            ),
            "Upside down: divide the narrow model's operations by DistilBERT's.": (
                _operations(768, 6) / _operations(576, 12)
            ),
        },
        tolerance=2e-4,
        hint="Not yet. A layer costs 24 H^2 + 4 L H operations a token, here with L = 128.",
    ),
    "ex-03-4": Exercise(
        answer=6,
        mistakes={
            "All eight differ while positions count. Set the position vectors to 0 first.": 8,
            "Count [CLS] and [SEP], too.": 4,
        },
    ),
}
