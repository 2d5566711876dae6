"""The exercises of chapter 3, on the student."""

from distil_lib.pages.exercises import Exercise

BERT, ONE_STUDENT = (30_522, 768, 6), (8192, 256, 3)  # V, H and layers


def _layer(width: int) -> int:
    """Attention, feed-forward and two LayerNorms."""
    return 12 * width**2 + 13 * width


def _parameters(vocabulary: int, width: int, layers: int) -> int:
    """Of DistilBERT with its head and 512 positions."""
    embeddings = vocabulary * width + 512 * width + 2 * width
    return embeddings + layers * _layer(width) + width**2 + 3 * width + vocabulary


def _operations(width: int, layers: int, length: int = 128) -> int:
    """Of the layers, for a token of a sequence of this length."""
    return layers * (24 * width**2 + 4 * length * width)


def _arithmetic_of_the_narrow_model() -> float:
    return _operations(576, 12) / _operations(768, 6)


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
            "own map, its LayerNorm and V biases.": lambda vocabulary, width, layers: (
                _parameters(vocabulary, width, layers) + vocabulary * width
            ),
            "This is the encoder alone. Add the head: a map from H to H, a LayerNorm, V biases.": (
                lambda vocabulary, width, layers: (
                    _parameters(vocabulary, width, layers) - width**2 - 3 * width - vocabulary
                )
            ),
            "You forgot the V biases of the head.": lambda vocabulary, width, layers: (
                _parameters(vocabulary, width, layers) - vocabulary
            ),
            "You forgot the LayerNorm of the embeddings: 2 H numbers.": (
                lambda vocabulary, width, layers: _parameters(vocabulary, width, layers) - 2 * width
            ),
            "You counted token types: DistilBERT has none.": lambda vocabulary, width, layers: (
                _parameters(vocabulary, width, layers) + 2 * width
            ),
        },
        inputs=lambda: [BERT, ONE_STUDENT],
        tolerance=1e-9,
    ),
    "ex-03-3": Exercise(
        answer=_arithmetic_of_the_narrow_model,
        mistakes={
            "You left out attention's two products over all tokens, 4 L H a layer.": (
                12 * 576**2 / (6 * 768**2)
            ),
            "This is the quotient of the layers' parameters. Count operations.": (
                12 * _layer(576) / (6 * _layer(768))
            ),
            "Upside down: divide the narrow model's operations by DistilBERT's.": (
                lambda: 1 / _arithmetic_of_the_narrow_model()
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
