"""The backbone of a saved run, built again and checked: the one that the head was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from headstart.backbones import Backbone
from headstart.commands.run_facts import backbone_fingerprint
from headstart.commands.run_place import RUN
from headstart.commands.settings import BackboneLike, BackboneSpec
from headstart.commands.trust import Named
from headstart.commands.tuned import Tuned
from headstart.core.errors import DataError, HeadstartError
from headstart.core.wording import shorten
from headstart.extraction import Precision, Storage


class SavedBackbone:
    """What a run folder says of its backbone; the attributes are those of a saved run."""

    folder: Path
    spec: BackboneSpec
    precision: Precision
    storage: Storage
    fingerprint: str
    tuned: Tuned | None
    built_from: Mapping[str, Mapping[str, Any]]
    trust_code: bool

    def load_backbone(
        self,
        given: BackboneLike | None = None,
        *,
        weights: str | Path | None = None,
        trust_code: bool = False,
        load: Callable[[BackboneSpec], Backbone] | None = None,
    ) -> Backbone:
        """Build the backbone and check that it is the one the head was trained on.

        Args:
            given: the backbone, where the run was made with a module of the user's own (as it was
                before a fine-tuning, or after), or where what run.json names has moved: a name, a
                module or a built backbone. What is given is trusted.
            weights: the file of weights, where it has moved; trusted, likewise.
            trust_code: run the file of code that run.json names, if it is the one that the run
                was made with.
            load: loads what runs no code of the user's; None: it is built.

        Raises:
            BackboneError: code is not trusted or has changed.
            DataError: weights or preprocessing have changed since.
        """
        if isinstance(given, Backbone):
            backbone = given
        else:
            backbone = self._described(lambda: self._build(given, weights, trust_code, load), given)
        if self.tuned is not None and not self._fits(backbone):
            backbone = self.tuned.apply(backbone)
        self.check(backbone)
        return backbone

    def _described(self, build: Callable[[], Backbone], given: BackboneLike | None) -> Backbone:
        """Build what run.json describes; values that no library expects end in one line."""
        try:
            return build()
        except HeadstartError:
            raise
        except Exception as error:
            if given is not None:
                raise
            reason = shorten(f"{type(error).__name__}: {error}", 200)
            raise DataError(
                f"the backbone that {self.folder / RUN} describes cannot be built ({reason})",
                hint="fit again, or name the backbone: backbone='NAME'",
            ) from error

    def _build(
        self,
        given: BackboneLike | None,
        weights: str | Path | None,
        trust_code: bool,
        load: Callable[[BackboneSpec], Backbone] | None,
    ) -> Backbone:
        if isinstance(given, BackboneSpec):
            return given.load()
        named = Named(self.folder, self.spec, self.built_from)
        module = given if isinstance(given, nn.Module) else None
        name = None if given is None or module is not None else str(given)
        spec, digest = named.admitted(
            trust_code=trust_code or self.trust_code,
            given=self.spec.source if module is not None else name,
            weights=None if weights is None else str(weights),
        )
        if module is not None:
            return spec.load_module(module)
        return spec.load(digest) if load is None or digest is not None else load(spec)

    def _fits(self, backbone: Backbone) -> bool:
        return backbone_fingerprint(backbone, self.precision, self.storage) == self.fingerprint

    def check(self, backbone: Backbone) -> None:
        """Refuse a backbone whose features are not those the head was trained on."""
        found = backbone_fingerprint(backbone, self.precision, self.storage)
        if found != self.fingerprint:
            raise DataError(
                f"the backbone is not the one that {self.folder} was trained with "
                f"(fingerprint {found[:12]}, expected {self.fingerprint[:12]}): "
                "its weights, code or preprocessing have changed",
                hint="restore the weights file, or fit again",
            )


__all__ = ["SavedBackbone"]
