"""Models from outside: what is accepted computes what its weights say; the rest is one sentence."""

import json
import shutil

import pytest
import torch
from helpers import randomize
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

from distil_lib.errors import UserError
from distil_lib.initialization import initialize_student, student_config
from distil_lib.model_folder import INDEX, check_model_folder
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM, load_teacher
from distil_lib.text.tokenizer import load_tokenizer
from distil_lib.vocabulary import check_tokenizer

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
}


def saved(model, folder, tokenizer=None):
    randomize(model).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(teacher_folder, tmp_path):
    """A copy of a sound teacher, to be spoilt."""
    return shutil.copytree(teacher_folder, tmp_path / "model")


@pytest.fixture
def ids(tokenizer):
    return torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(0))


def change_config(folder, **entries):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | entries
    path.write_text(json.dumps(config))


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = change(load_file(path))
    save_file({k: v.contiguous() for k, v in weights.items()}, path, {"format": "pt"})


def refused(folder, *words, **options):
    with pytest.raises(UserError) as caught:
        load_teacher(folder, **options)
    for word in words:
        assert word.lower() in str(caught.value).lower(), (word, str(caught.value))


# -------------------------------------------------------------------------------------- weights
def test_a_sound_teacher_is_what_transformers_opens(folder, tokenizer, ids):
    """Oracle: `transformers` itself."""
    theirs = AutoModelForMaskedLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(load_teacher(folder, tokenizer)(ids).logits, theirs(ids).logits)


def test_an_untied_decoder_that_is_missing_is_refused_and_a_tied_one_is_not(folder, ids):
    load_teacher(folder)
    change_config(folder, tie_word_embeddings=False)
    refused(folder, "lacks", "decoder")


@pytest.mark.parametrize("part", ["decoder.weight", "query.weight", "transform.dense.bias"])
def test_any_missing_weight_of_an_untied_model_is_refused(part, tmp_path, tokenizer):
    config = BertConfig(vocab_size=90, tie_word_embeddings=False, **SIZES)
    folder = saved(BertForMaskedLM(config), tmp_path / "model")
    load_teacher(folder)
    name = next(k for k in load_file(folder / "model.safetensors") if k.endswith(part))
    change_weights(folder, lambda w: {k: v for k, v in w.items() if k != name})
    refused(folder, "lacks", name)
    refused(folder, "lacks", name, new_head=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(folder, value):
    name = "bert.encoder.layer.1.output.dense.weight"

    def spoil(weights):
        weights[name][3, 2] = value
        return weights

    change_weights(folder, spoil)
    refused(folder, name, "NaN or infinity")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 1.0])
def test_a_file_whose_end_was_never_written_is_refused(kind, share, folder, tmp_path):
    """As a power cut leaves it. Oracle: safetensors, which reads zeros; share 0: one row of one."""
    if kind == "roberta":
        folder = saved(RobertaForMaskedLM(RobertaConfig(**SIZES, vocab_size=160)), tmp_path / kind)
    elif kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
        folder = saved(Student(DistilBertConfig(**sizes, vocab_size=160)), tmp_path / kind)
    load_teacher(folder)
    file = folder / "model.safetensors"
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    row = 32 if kind == "roberta" else 16  # the last matrix is the second of a feed-forward block
    zeros = max(int(share * (len(content) - header)), 4 * row)
    file.write_bytes(content[:-zeros] + bytes(zeros))
    assert load_file(file)
    refused(folder, "one value from row ", "download")


def test_a_matrix_of_one_value_is_refused(folder):
    """Nothing that was trained has one; a LayerNorm of ones is how all of them start."""
    name = "bert.encoder.layer.1.output.dense.weight"
    norm = "bert.encoder.layer.0.output.LayerNorm.weight"
    change_weights(folder, lambda w: w | {norm: torch.ones_like(w[norm])})
    load_teacher(folder)
    change_weights(folder, lambda w: w | {name: torch.full_like(w[name], 0.5)})
    refused(folder, name, "one value from row 0 ")


def test_a_pointer_in_the_place_of_the_weights_is_named(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"
    (folder / "model.safetensors").write_text(pointer)
    refused(folder, "pointer of Git LFS", "git lfs pull")


@pytest.mark.parametrize("value", ["evil.module", 5, ["float32"], {}, "int8"])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_precisions_that_no_weights_have_are_refused(folder, key, value):
    change_config(folder, **{key: value})
    refused(folder, key, "precision")


def test_zeros_that_are_no_damage_are_read(folder):
    """Of words that no text has had, of pruned rows, of biases that no training has moved."""

    def spoil(weights):
        words = next(k for k in weights if k.endswith("word_embeddings.weight"))
        positions = next(k for k in weights if k.endswith("position_embeddings.weight"))
        pruned = "bert.encoder.layer.1.output.dense.weight"
        weights[words][-9:] = weights[positions][-5:] = 0
        weights[pruned][[3, 7, 15]] = 0  # the last one, too
        for name in weights:
            if name.endswith("bias") or "token_type" in name:
                weights[name].zero_()
        return weights

    change_weights(folder, spoil)
    load_teacher(folder)


def test_a_folder_in_the_place_of_the_weights_is_named(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    refused(folder, "model.safetensors is no file")


def test_pruned_heads_are_named(folder):
    name = "bert.encoder.layer.0.attention.self.query.weight"
    change_weights(folder, lambda w: w | {name: w[name][:8]})
    refused(folder, name, "(8, 16)", "(16, 16)", "pruned heads")


def test_names_of_data_parallel_are_named(folder):
    change_weights(folder, lambda w: {f"module.{k}": v for k, v in w.items()})
    refused(folder, "module.", "DataParallel")


def test_nothing_of_the_loading_report_reaches_the_screen(folder, capfd):
    change_weights(folder, lambda w: w | {"surplus": torch.ones(1)})
    load_teacher(folder)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


# -------------------------------------------------------------------------------------- new heads
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_without_a_head_gets_one_tied_to_its_words(kind, tied, tmp_path, ids):
    """Oracle: the encoder as `transformers` opens it; its states are unchanged."""
    config = (BertConfig if kind == "bert" else RobertaConfig)(
        vocab_size=120, tie_word_embeddings=tied, **SIZES
    )
    encoder = (BertModel if kind == "bert" else RobertaModel)(config, add_pooling_layer=False)
    folder = saved(encoder, tmp_path / "model")
    refused(folder, "no head", "pretrain on from it")
    model = load_teacher(folder, new_head=True).to_training(dropout=0.1)
    assert model.training and all(p.requires_grad for p in model.parameters())
    words = model.model.get_input_embeddings().weight
    assert model.model.get_output_embeddings().weight is words
    with torch.no_grad():
        states = encoder.eval()(ids).last_hidden_state
        torch.testing.assert_close(model.eval()(ids).last_hidden_state, states)
        assert torch.isfinite(model(ids).logits).all() and model(ids).logits.std() > 0
    model.save_pretrained(tmp_path / "again")
    again = load_teacher(tmp_path / "again")
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_a_head_that_is_there_is_kept(folder, ids):
    assert torch.equal(
        load_teacher(folder, new_head=True)(ids).logits, load_teacher(folder)(ids).logits
    )


# -------------------------------------------------------------------------------------- families
def test_other_families_are_refused_before_their_weights_are_read(folder):
    for family in ("camembert", "xlm-roberta", "bart", "esm", "funnel", "mobilebert", "mpnet"):
        change_config(folder, model_type=family)
        (folder / "model.safetensors").write_bytes(b"no weights at all")
        refused(folder, family, "bert, roberta")


def test_a_students_student_is_the_student_cut(tmp_path, ids):
    """A second generation. Oracle: the first, with the layers taken out by hand."""
    config = DistilBertConfig(
        vocab_size=120, dim=16, hidden_dim=32, n_layers=4, n_heads=2, layer_norm_eps=1e-3
    )
    first = randomize(Student(config)).eval()
    first.save_pretrained(tmp_path)
    teacher = load_teacher(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(teacher(ids).logits, first(ids).logits)
        layers = first.distilbert.transformer["layer"]
        for source in (teacher, first):
            student = initialize_student(source, "spread", 2).eval()
            short = randomize(Student(config)).eval()
            short.distilbert.transformer["layer"] = torch.nn.ModuleList([layers[0], layers[3]])
            torch.testing.assert_close(student(ids).logits, short(ids).logits)
    assert student.config.n_layers == 2


def test_a_student_without_layers_is_refused():
    one = BertConfig(vocab_size=90, **SIZES | {"num_hidden_layers": 1})
    for make in (lambda: initialize_student(BertModel(one)), lambda: student_config(one, 0)):
        with pytest.raises(UserError, match="0 layers"):
            make()
    with pytest.raises(UserError, match="n_layers"):
        Student(DistilBertConfig(vocab_size=9, dim=8, hidden_dim=8, n_layers=0, n_heads=1))


def test_a_model_without_a_head_is_no_teacher():
    with pytest.raises(UserError, match="BertModel"):
        MaskedLM(BertModel(BertConfig(vocab_size=90, **SIZES)))


# ------------------------------------------------------------------------------------- vocabularies
@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("with_tokenizer, rows", [(True, 1000), (False, 192)])
def test_rows_beyond_the_words_are_cut_and_the_other_logits_stay(
    kind, with_tokenizer, rows, tokenizer, tmp_path, ids
):
    """Oracle: the padded model's own logits at the words, to the bit."""
    make = (BertForMaskedLM, BertConfig) if kind == "bert" else (RobertaForMaskedLM, RobertaConfig)
    model = make[0](make[1](vocab_size=rows, pad_token_id=0, **SIZES))
    words = len(tokenizer)
    folder = saved(model, tmp_path / "model", tokenizer if with_tokenizer else None)
    with pytest.warns(UserWarning, match=f"the last {rows - words} are left out"):
        teacher = load_teacher(folder, tokenizer)
    with torch.no_grad():
        assert torch.equal(teacher(ids).logits, model.eval()(ids).logits[..., :words])
    student = initialize_student(teacher)
    assert student.config.vocab_size == words == student(ids).logits.shape[-1]
    teacher.save_pretrained(tmp_path / "again")
    assert torch.equal(load_teacher(tmp_path / "again", tokenizer)(ids).logits, teacher(ids).logits)


@pytest.mark.parametrize("rows", [-8, 40, 1000])
def test_other_numbers_of_rows_are_refused(rows, tokenizer, tmp_path):
    """Fewer than words, no multiple of 8, or far more with nothing that says whose they are."""
    rows = len(tokenizer) + rows + (1 if rows == 40 else 0)
    folder = saved(BertForMaskedLM(BertConfig(vocab_size=rows, **SIZES)), tmp_path / "model")
    refused(folder, str(rows), str(len(tokenizer)), tokenizer=tokenizer)


def permuted(tokenizer, tmp_path, a, b):
    """The same tokenizer with two words exchanged."""
    tokenizer.save_pretrained(tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    by_id = {id: word for word, id in vocabulary.items()}
    vocabulary[by_id[a]], vocabulary[by_id[b]] = b, a
    path.write_text(json.dumps(content))
    return by_id, type(tokenizer).from_pretrained(tmp_path / "other")


def test_another_tokenizer_of_the_same_size_is_refused_with_the_first_word_that_differs(
    folder, tokenizer, tmp_path
):
    by_id, other = permuted(tokenizer, tmp_path, 31, 77)
    assert len(other) == len(tokenizer)
    refused(folder, "Id 31 ", repr(by_id[31]), repr(by_id[77]), tokenizer=other)
    words = "\n".join(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text(words, encoding="utf-8")
    load_teacher(folder, tokenizer)
    refused(folder, "Id 31 ", tokenizer=other)


class Vocabulary:
    """As much of a tokenizer as is asked for its words."""

    mask_token, mask_token_id, unk_token_id = "[MASK]", 2, 1

    def __init__(self, vocabulary):
        self.get_vocab = lambda: vocabulary

    def __len__(self):
        return len(self.get_vocab())


def test_vocabularies_with_shared_ids_or_without_a_mask_are_refused():
    check_tokenizer(Vocabulary({"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "a": 3}), None, "it")
    for words, message in (
        ({"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "a": 2}, "share an id"),
        ({"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "a": 4}, "share an id"),
        ({"[PAD]": 0, "[UNK]": 1, "b": 2, "a": 3}, "no word [MASK]"),
    ):
        with pytest.raises(UserError) as caught:
            check_tokenizer(Vocabulary(words), None, "it")
        assert message in str(caught.value)


def test_a_mask_that_transformers_adds_by_itself_is_none(tmp_path, tokenizer):
    """A vocabulary without [MASK] gets one beyond its end, where a padded model has a row."""
    words = [w for w in tokenizer.convert_ids_to_tokens(range(len(tokenizer))) if w != "[MASK]"]
    from transformers import BertTokenizerFast

    without = BertTokenizerFast(vocab={word: id for id, word in enumerate(words)})
    assert without.mask_token_id == len(words)
    folder = saved(BertForMaskedLM(BertConfig(vocab_size=192, **SIZES)), tmp_path / "model")
    refused(folder, "no word [MASK]", tokenizer=without)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    refused(folder, "no word [MASK]", tokenizer=without)


# -------------------------------------------------------------------------------------- config.json
WRONG = [
    {"hidden_size": "many"},
    {"hidden_size": None},
    {"hidden_size": True},
    {"hidden_size": 16.0},
    {"hidden_size": 0},
    {"hidden_size": -16},
    {"num_hidden_layers": 10**9},
    {"num_attention_heads": 0},
    {"num_attention_heads": 3},
    {"vocab_size": [160]},
    {"vocab_size": 10**12},
    {"max_position_embeddings": {}},
    {"intermediate_size": 10**9},
    {"hidden_size": 2**17, "vocab_size": 2**22},
    {"num_hidden_layers": 512, "hidden_size": 2**16, "intermediate_size": 2**17},
    {"layer_norm_eps": -1},
    {"layer_norm_eps": "1e-12"},
    {"layer_norm_eps": 0},
    {"hidden_dropout_prob": 1.5},
    {"attention_probs_dropout_prob": None},
    {"initializer_range": -0.1},
    {"pad_token_id": -1},
    {"type_vocab_size": "2"},
    {"chunk_size_feed_forward": "x"},
    {"model_type": ["bert"]},
    {"model_type": None},
    {"hidden_act": 3},
    {"is_decoder": "no"},
    {"tie_word_embeddings": 1},
    {"id2label": ["a"]},
    {"quantization_config": {"quant_method": "bitsandbytes"}},
    {"attn_implementation": "owner/kernel"},
    {"_attn_implementation": "owner/kernel"},
    {"text_config": {"attn_implementation": "owner/kernel"}},
    {"text_config": [{"auto_map": {}}]},
    {"auto_map": {"AutoModelForMaskedLM": "owner/code--model.Model"}},
    {"transformers_weights": "../other.safetensors"},
]


@pytest.mark.parametrize("entries", WRONG, ids=str)
def test_configurations_that_no_model_can_have_are_refused_with_the_entry(folder, entries):
    change_config(folder, **entries)
    found = next(iter(entries))
    found = {"text_config": "_"}.get(found, found) if len(entries) == 1 else "parameters"
    refused(folder, "config.json", found)


def test_what_transformers_refuses_is_told_with_its_reason(folder):
    """Its message has the entry in the first line and the reason in the second."""
    change_config(folder, use_cache="x")
    refused(folder, "use_cache", "bool")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "5", "[]", '{"a": NaN}', '{"a": Infinity}', "[" * 10**5, "\xff"]
)
def test_texts_that_are_no_configuration_are_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refused(folder, "config.json")


def test_configurations_of_other_families_pass(tmp_path):
    """The check is for every loader: it must refuse nothing that `transformers` itself writes."""
    from transformers import CONFIG_MAPPING

    for family in (
        "albert bert camembert deberta-v2 distilbert electra ernie esm fnet funnel mobilebert "
        "modernbert mpnet roberta roformer xlm-roberta xlnet"
    ).split():
        CONFIG_MAPPING[family](vocab_size=100).save_pretrained(tmp_path / family)
        (tmp_path / family / "model.safetensors").touch()
        assert check_model_folder(tmp_path / family)["model_type"] == family


# -------------------------------------------------------------------------------------- folders
@pytest.mark.parametrize(
    "shard", ["pytorch_model-00001.bin", "../a.safetensors", "/a.safetensors", "a\\b.safetensors"]
)
def test_an_index_that_leads_elsewhere_or_to_pickles_is_refused(folder, shard):
    (folder.parent / "a.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / INDEX).write_text(json.dumps({"weight_map": {"weight": shard}}))
    refused(folder, INDEX)


@pytest.mark.parametrize("content", ["null", "{", '{"weight_map": []}', '{"weight_map": {"a": 5}}'])
def test_an_index_of_another_shape_is_refused(folder, content):
    (folder / INDEX).write_text(content)
    refused(folder, INDEX)


def test_a_shard_that_is_missing_is_named(folder):
    (folder / INDEX).write_text(json.dumps({"weight_map": {"weight": "b.safetensors"}}))
    refused(folder, "lacks b.safetensors")


def test_shards_are_read(tmp_path, ids):
    model = randomize(BertForMaskedLM(BertConfig(vocab_size=120, **SIZES))).eval()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / INDEX).is_file()
    assert torch.equal(load_teacher(tmp_path)(ids).logits, model(ids).logits)


def test_folders_that_do_not_exist_are_said_so(tmp_path, folder, monkeypatch):
    refused(tmp_path / "nothing", "does not exist")
    monkeypatch.chdir(tmp_path)
    for name in ("./nothing", "../nothing", "a/b/c", "~/nothing-at-all"):
        refused(name, f"{name} does not exist")
    refused(folder / "config.json", "is a file")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pickle")


# ------------------------------------------------------------------------- what transformers does
def test_the_epsilon_that_transformers_does_not_read_survives_a_save(ids, tmp_path):
    """Oracle: the logits of `transformers`, which fixes the epsilon of DistilBERT."""
    for eps in (1e-12, 1e-3):
        config = DistilBertConfig(
            vocab_size=120, dim=16, hidden_dim=32, n_layers=2, n_heads=2, layer_norm_eps=eps
        )
        student = randomize(Student(config), std=0.05).eval()
        with torch.no_grad():
            theirs = student.to_transformers()(ids).logits
            largest = (student(ids).logits - theirs).abs().max().item()
        assert (largest > 1e-4) == (eps != 1e-12)
        student.save_pretrained(tmp_path)
        with torch.no_grad():
            assert torch.equal(Student.from_pretrained(tmp_path)(ids).logits, student(ids).logits)


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_that_config_json_leaves_out_are_refused(layers, folder):
    """The teacher would be another one: cut, without a word."""
    change_config(folder, num_hidden_layers=layers)
    refused(folder, f"layer.{layers}.", "config.json leaves out")


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.float8_e4m3fn, torch.complex64])
def test_weights_without_their_scale_are_refused(kind, folder):
    try:
        change_weights(folder, lambda weights: {k: v.to(kind) for k, v in weights.items()})
    except KeyError:
        pytest.skip(f"this version of safetensors has no {kind}")
    refused(folder, "of the type", "quantized")


@pytest.mark.parametrize("entries", [{"return_dict": False}, {"chunk_size_feed_forward": 7}])
def test_how_a_model_answers_is_not_for_its_config_json_to_say(entries, folder, ids):
    expected = load_teacher(folder)(ids).logits
    change_config(folder, **entries)
    assert torch.equal(load_teacher(folder)(ids).logits, expected)


@pytest.mark.parametrize("labels", [10**9, -1, True])
def test_numbers_of_labels_that_no_head_has_are_refused(labels, folder):
    """`transformers` would make a name for each of them."""
    change_config(folder, num_labels=labels)
    refused(folder, "num_labels")
    with pytest.raises(UserError, match="num_labels"):
        load_tokenizer(folder)
