"""Datasets of the Hugging Face Hub as documents, stored or read while they are trained on."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import datasets
from datasets import Dataset, IterableDataset
from huggingface_hub import HfFileSystem

from distil_lib.common.hub import LOADING_ERRORS
from distil_lib.common.paths import hub_cache_problem
from distil_lib.errors import UserError
from distil_lib.text.sources import Source

OFFLINE = 'Check its name and the network connection, or train without either on the corpus "docs".'


def hub_size(source: Source, revisions: Mapping[str, str]) -> int:
    """Bytes that a dataset takes, as far as the Hub says so; else 0."""
    name, config, split = source.repository
    try:
        builder = datasets.load_dataset_builder(name, config, revision=revisions.get(name))
        if size := builder.info.dataset_size or builder.info.download_size:
            return size
        files = (builder.config.data_files or {}).get(split.split("[")[0], [])
        hub = HfFileSystem()
        return sum(hub.info(file)["size"] for file in files if file.startswith("hf://"))
    except LOADING_ERRORS as error:
        raise _not_loaded(source, error) from error


def fits_on_disk(size: int) -> bool:
    """Whether data of this size, with the copies made of it, leave half of the disk free."""
    place = Path(datasets.config.HF_DATASETS_CACHE)
    place = next(folder for folder in (place, *place.parents) if folder.exists())
    return 2 * size <= shutil.disk_usage(place).free


def hub_documents(
    source: Source, streaming: bool = False, revision: str | None = None
) -> Dataset | IterableDataset:
    """The `text` column of a dataset of the Hub (`HF_ENDPOINT`).

    Args:
        source: which one.
        streaming: read over the network while training, with nothing stored.
        revision: of the repository; the newest that is known if there is none.
    """
    name, config, split = source.repository
    try:
        documents = datasets.load_dataset(
            name, config, split=split, streaming=streaming, revision=revision
        )
        columns = documents.column_names
        if columns is None:  # of a stream of CSV or JSON, before its first row is read
            columns = list(next(iter(documents), {}))
    except LOADING_ERRORS as error:
        raise _not_loaded(source, error) from error
    if "text" not in columns:
        raise UserError(
            f"{source.name} has the columns {', '.join(columns) or 'none'}.",
            "Only datasets with a `text` column can be read.",
        )
    documents = documents.select_columns("text")
    features = documents.features
    if features and getattr(features["text"], "dtype", None) not in ("string", "large_string"):
        raise UserError(
            f"The column `text` of {source.name} holds {features['text']}.", "It must hold strings."
        )
    if streaming:  # from files to their row groups, so that processes can share a stream evenly
        documents = documents.reshard().map(name_by_text, input_columns="text")
    return documents


def _not_loaded(source: Source, error: BaseException) -> UserError:
    words = str(error).strip().splitlines() or [""]
    name, config, _ = source.repository
    if "onfig name is missing" in words[0] or "BuilderConfig" in words[0]:
        try:
            configs = datasets.get_dataset_config_names(name)
        except LOADING_ERRORS:
            configs = []
        if configs:
            problem = f"has no configuration {config!r}" if config else "has several configurations"
            return UserError(
                f"The dataset hub:{name} {problem}.",
                f"Choose one of {', '.join(configs[:20])}: hub:{name}:{configs[0]}.",
            )
    if cache_problem := hub_cache_problem(error):
        return cache_problem
    return UserError(
        f"The dataset {source.name[4:]!r} could not be loaded from the Hub"
        f" ({type(error).__name__}: {words[0][:200]}).",
        OFFLINE,
    )


def name_by_text(text: str | None) -> dict[str, str]:
    """A name that is the same wherever the document stands: it decides whether it is held out."""
    if text is not None and not isinstance(text, str):
        raise UserError(f"A document of the stream is no text: {str(text)[:80]!r}.", "Mend it.")
    return {"name": hashlib.blake2b((text or "").encode(), digest_size=12).hexdigest()}


def stored_rows(documents: Dataset) -> Iterator[tuple[str, str]]:
    """(name, text) of each document that has a text."""
    for batch in documents.iter(100):
        for text in batch["text"]:
            if text is not None:
                yield name_by_text(text)["name"], text
