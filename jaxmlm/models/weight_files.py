"""The weights in a directory of the `transformers` format: .safetensors or PyTorch's .bin, in one file or several."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from jaxmlm.errors import InputError, brief
from jaxmlm.json_files import read_json

WHAT = "a JSON object of the transformers format"
_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32")  # whole numbers: of position_ids, which nothing reads


class Tensors:
    """The named tensors of a directory, read one at a time, in float32."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._open = []
        self._where = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in self._files():
            if file.suffix == ".bin":
                self._add(self._torch(file))
            else:
                try:
                    opened = safetensors.safe_open(file, framework="numpy")
                except safetensors.SafetensorError as error:
                    raise InputError(f"{file} is not a complete safetensors file ({error}): copy it again") from error
                self._open.append(opened)
                self._add({name: opened for name in opened.keys()})

    def __enter__(self) -> "Tensors":
        return self

    def __exit__(self, *_: object) -> None:
        self._where.clear()
        self._open.clear()

    def _files(self) -> list[Path]:
        for name in ("model.safetensors", "pytorch_model.bin"):
            if (self.directory / name).is_file():
                return [self.directory / name]
            index = self.directory / f"{name}.index.json"
            if index.is_file():
                names = read_json(index, WHAT).get("weight_map")
                if not isinstance(names, dict) or not names:
                    raise InputError(f"{index} has no weight_map, which names the file of each weight: copy it again")
                if outside := [part for part in names.values() if not isinstance(part, str) or Path(part).name != part]:
                    raise InputError(f"{index} names {outside[0]!r}: give names of files in the same directory")
                parts = [self.directory / part for part in sorted(set(names.values()))]
                for part in parts:
                    if not part.is_file():
                        raise InputError(f"{part} is missing, and {index.name} names it: copy it too")
                return parts
        raise InputError(f"{self.directory} holds no weights: expected model.safetensors or pytorch_model.bin")

    def _torch(self, file: Path) -> dict[str, Any]:
        try:
            import torch
        except ImportError as error:
            raise InputError(f"{file} needs PyTorch: pip install torch, or give model.safetensors") from error
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle and zip errors of many kinds; weights_only refuses code
            raise InputError(f"{file} holds more than weights, or is damaged: {brief(error)}") from error
        if not isinstance(found, dict) or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in found.items()):
            raise InputError(f"{file} is not a table of names and tensors: save the state_dict of the model alone")
        for name, tensor in found.items():
            plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
            if not plain or tensor.is_complex():
                raise InputError(f"{file}: {name} is not a dense tensor of real numbers: save the plain weights")
        return {name: tensor.detach() for name, tensor in found.items()}

    def _add(self, found: dict[str, Any]) -> None:
        for name, source in found.items():
            # TensorFlow's names of scale and bias, which the first BERT files still carry.
            now = re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", name))
            self._where[now] = (name, source)
            inside = source.get_slice(name) if hasattr(source, "get_slice") else None
            if inside is not None and inside.get_dtype() not in _DTYPES:
                raise InputError(
                    f"{self.directory}: {name} is of type {inside.get_dtype()}: convert the weights to one of "
                    f"{', '.join(_DTYPES)}"
                )
            self.shapes[now] = tuple(source.shape if inside is None else inside.get_shape())

    def strip(self, prefix: str) -> None:
        """Take the prefix off the names that have it: bare encoders are saved with and without."""
        for names in (self._where, self.shapes):
            for name in [name for name in names if name.startswith(prefix)]:
                names[name.removeprefix(prefix)] = names.pop(name)

    def rename(self, name: str, new: str) -> None:
        """Call a tensor, if it is there, by a new name."""
        for names in (self._where, self.shapes):
            if name in names:
                names[new] = names.pop(name)

    def rename_all(self, renamed: dict[str, str | None]) -> None:
        """Call tensors by new names; None: forget it."""
        for name, new in renamed.items():
            self.drop(name) if new is None else self.rename(name, new)

    def drop(self, name: str) -> None:
        """Forget a tensor."""
        del self._where[name], self.shapes[name]

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        inside, source = self._where[name]
        tensor = source.get_tensor(inside) if hasattr(source, "get_slice") else source.float().numpy()
        array = np.asarray(tensor, np.float32)
        if not np.isfinite(array).all():
            raise InputError(
                f"{self.directory}: {name} holds numbers that are not finite: copy or save the weights again"
            )
        return array
