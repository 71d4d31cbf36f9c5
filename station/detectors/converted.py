"""What .pt files were converted to, as ONNX in the model store, by the sha256 of the .pt."""

from __future__ import annotations

import json
from pathlib import Path

from station.detectors.card import model_sha256, sha256_of
from station.detectors.store import CONVERTED, ModelFile, ModelStore, copy_synced
from station.durable import draft_of
from station.errors import ModelError


def converted(pt: Path, store: ModelStore) -> ModelFile | None:
    """
    The ONNX that was made of exactly this .pt before; None: it has to be made. Raises ModelError.

    One that is damaged or gone is made again, which overwrites what is there: nobody could import it.
    """
    folder, sha256 = store.folder / CONVERTED, model_sha256(pt)
    try:
        note = json.loads((folder / f"{sha256}.json").read_text(encoding="utf-8"))
        made = ModelFile(folder / f"{sha256}.onnx", pt.stem, str(note["sha256"]))
        whole = sha256_of(made.path) == made.sha256
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return made if whole else None


def keep_converted(pt: Path, onnx: Path, store: ModelStore) -> ModelFile:
    """Takes a copy of *onnx*, made of *pt*, to where ``converted`` finds it. Raises ModelError."""
    folder, sha256, made = store.folder / CONVERTED, model_sha256(pt), model_sha256(onnx)
    target = folder / f"{sha256}.onnx"
    with store.changing():
        try:
            folder.mkdir(exist_ok=True)
            store.adopt(folder)
            draft = draft_of(target)
            try:
                copy_synced(onnx, draft, made)
                store.adopt(draft)
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise ModelError(f"the converted model cannot be kept in {folder}: {error.strerror or error}") from None
        store.write(f"{CONVERTED}/{sha256}.json", {"sha256": made, "source": pt.name})
    return ModelFile(target, pt.stem, made)
