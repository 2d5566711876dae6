"""ELMo's tokenizer; with it `transformers` opens a checkpoint of ELMo like any other.

    register()                                   # once, before the Auto classes are asked
    new_tokenizer()("A cat sat.", "It sits.")    # input_ids, token_type_ids, attention_mask (23)

There is nothing to learn: an id is a character (`elmo.characters`), with a mark before each word.
"""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from distil_lib.elmo.characters import BEGIN_TEXT, BEGIN_WORD, END_TEXT, END_WORD, NO_CHARACTER
from distil_lib.elmo.classifier import ElmoForSequenceClassification
from distil_lib.elmo.model import Elmo, ElmoConfig

# `transformers` asks for these five; a text never holds any of them (`split_special_tokens`).
SPECIAL = {
    "pad_token": ("[PAD]", 0),
    "cls_token": ("[CLS]", BEGIN_TEXT),
    "sep_token": ("[SEP]", END_TEXT),
    "unk_token": ("[UNK]", END_WORD),
    "mask_token": ("[MASK]", NO_CHARACTER),
}


class ElmoTokenizer(PreTrainedTokenizerFast):
    """Text to a stream of characters, with a mark before each word or punctuation mark.

    `max_length` counts words, not characters. `transformers` can pad and batch such a stream; the
    model cuts it into words (`cut_words`).
    """

    def words(self, text: str) -> list[str]:
        """The words of a text."""
        return [text[start:end] for start, end in self._spans(text)]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return [span for _, span in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)]

    def _cut(self, text: str, most: int) -> str:
        spans = self._spans(text)
        return text if len(spans) <= most else text[: spans[most - 1][1]] if most else ""

    def _cut_pair(self, first: str, second: str | None, most: int) -> tuple[str, str | None]:
        if second is None:
            return self._cut(first, most), None
        words = len(self._spans(second))
        kept = min(words, max(most - len(self._spans(first)), most // 2))
        return self._cut(first, most - kept), self._cut(second, kept)

    def __call__(self, text, text_pair=None, truncation=False, max_length=None, **options):
        """As of any tokenizer, one text or a list of them.

        Of a pair with more than `max_length` words the longer text is cut first.
        """
        if truncation and max_length is not None:
            if isinstance(text, str):
                text, text_pair = self._cut_pair(text, text_pair, max_length)
            else:
                pairs = zip(text, text_pair or [None] * len(text), strict=True)
                cut = [self._cut_pair(*pair, max_length) for pair in pairs]
                text = [first for first, _ in cut]
                text_pair = text_pair and [second for _, second in cut]
        return super().__call__(text, text_pair, **options)


def new_tokenizer() -> ElmoTokenizer:
    """The tokenizer: there is only one, and nothing to learn."""
    # ByteLevel writes each byte as a character of its own: as its Latin-1 character if visible, the
    # others, in their order, from U+0100 on.
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    written = sorted(range(256), key=lambda byte: chr(byte) not in characters)
    alphabet = {c: byte + 1 for c, byte in zip(characters, written, strict=True)}
    # It writes a space before each word, which is the mark here: a word itself has no space.
    alphabet[characters[written.index(ord(" "))]] = BEGIN_WORD
    tokenizer = Tokenizer(models.BPE(vocab=alphabet | dict(SPECIAL.values()), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.BertPreTokenizer(),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0", pair="$A:0 $B:1", special_tokens=[]
    )
    names = {name: token for name, (token, _) in SPECIAL.items()}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return ElmoTokenizer(
        tokenizer_object=tokenizer, model_input_names=inputs, split_special_tokens=True, **names
    )


def register() -> None:
    """Let the Auto classes of `transformers` know ELMo; a second call changes nothing."""
    AutoConfig.register("elmo", ElmoConfig, exist_ok=True)
    AutoModel.register(ElmoConfig, Elmo, exist_ok=True)
    AutoModelForSequenceClassification.register(
        ElmoConfig, ElmoForSequenceClassification, exist_ok=True
    )
    AutoTokenizer.register(ElmoConfig, fast_tokenizer_class=ElmoTokenizer, exist_ok=True)
