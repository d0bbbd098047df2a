"""Malformed scenarios: files in `malformed/`, others written when asked for, and what each must be refused with."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

COMMITTED = Path(__file__).parent / "malformed"


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario's file name, the line that is to blame, a fragment of the message, and the file to blame if it is another."""

    name: str
    line: int
    fragment: str
    in_file: str | None = None

    @property
    def blamed(self) -> str:
        """The name of the file to blame."""
        return self.in_file or self.name


# fmt: off
CASES: tuple[Case, ...] = (
    Case("empty.yaml", 1, "the document is empty"),
    Case("only-comments.yaml", 1, "the document is empty"),
    Case("null-document.yaml", 1, "the document is empty"),
    Case("several-documents.yaml", 2, "several documents"),
    Case("list-at-top.yaml", 1, "the top level is a list"),
    Case("scalar-at-top.yaml", 1, "the top level is a scalar"),
    Case("broken-indentation.yaml", 4, "this is not YAML"),
    Case("unclosed-bracket.yaml", 2, "this is not YAML"),
    Case("unclosed-quote.yaml", 5, "this is not YAML"),
    Case("tab-indentation.yaml", 3, "this is not YAML"),
    Case("duplicate-key.yaml", 5, "appears twice"),
    Case("duplicate-section.yaml", 4, "appears twice"),
    Case("python-tag.yaml", 2, "tag"),
    Case("custom-tag.yaml", 2, "the tag '!include' is not allowed"),
    Case("str-tag.yaml", 2, "tag"),
    Case("anchor.yaml", 2, "the anchor '&base' is not allowed"),
    Case("alias-bomb.yaml", 1, "not allowed; scenarios have neither anchors nor aliases"),
    Case("merge-key.yaml", 3, "merge keys are not allowed"),
    Case("complex-key.yaml", 2, "cannot be a key"),
    Case("yaml-directive.yaml", 1, "this is not YAML"),
    Case("unknown-key.yaml", 3, "Did you mean 'batch_size'?"),
    Case("unknown-section.yaml", 2, "Did you mean 'schedule'?"),
    Case("unknown-tier.yaml", 4, "Did you mean 'parameter_server'?"),
    Case("wrong-extends-key.yaml", 1, "Did you mean 'extends'?"),
    Case("nothing-but-name.yaml", 1, "is missing at the top level"),
    Case("missing-field.yaml", 4, "model.features[0].rows is missing"),
    Case("null-section.yaml", 2, "workload: nothing (null)"),
    Case("list-for-mapping.yaml", 2, "a list; expected a mapping"),
    Case("scalar-for-list.yaml", 3, "expected a list"),
    Case("mapping-for-list.yaml", 4, "a mapping; expected a list"),
    Case("empty-features.yaml", 3, "a list that is empty"),
    Case("empty-layers.yaml", 2, "a list that is empty"),
    Case("number-for-name.yaml", 2, "Put it in quotes"),
    Case("empty-name.yaml", 2, "that is empty"),
    Case("bool-for-count.yaml", 3, "true (a boolean) is not a number"),
    Case("string-for-count.yaml", 2, "'many'"),
    Case("negative-count.yaml", 2, "-8 is too small"),
    Case("zero-count.yaml", 3, "0 is too small"),
    Case("half-a-batch.yaml", 3, "not a whole number"),
    Case("nan.yaml", 3, "nan is not finite"),
    Case("infinity.yaml", 3, "inf is not finite"),
    Case("nan-zipf.yaml", 4, "nan is not finite"),
    Case("unknown-unit.yaml", 3, "unknown unit 'parsecs'"),
    Case("wrong-dimension.yaml", 3, "unknown unit 'Gbps'"),
    Case("wrong-case-of-unit.yaml", 3, "Did you mean 'MB'?"),
    Case("sexagesimal.yaml", 3, "colon"),
    Case("octal.yaml", 3, "leading zero"),
    Case("hexadecimal.yaml", 3, "leading zero"),
    Case("too-large.yaml", 3, "is too large"),
    Case("far-too-large.yaml", 3, "is not a number"),
    Case("huge-exponent.yaml", 3, ""),
    Case("huge-exponent-with-unit.yaml", 3, "is not a number"),
    Case("thirty-billion-features.yaml", 4, "too large"),
    Case("negative-zipf.yaml", 7, "-0.5 is too small"),
    Case("negative-size.yaml", 2, "too small"),
    Case("zero-permits.yaml", 3, "0 is too small"),
    Case("yes-for-bool.yaml", 4, "Write true or false"),
    Case("unknown-mode.yaml", 3, "Did you mean 'hybrid'?"),
    Case("wrong-bytes-per-parameter.yaml", 4, "expected 2 or 4"),
    Case("interval-target-of-one.yaml", 2, "less than 1"),
    Case("extends-missing-file.yaml", 1, "no such file"),
    Case("extends-unknown-name.yaml", 2, "Did you mean 'persia-100t'?"),
    Case("extends-itself.yaml", 1, "round in a circle"),
    Case("extends-itself-by-name.yaml", 2, "round in a circle"),
    Case("circle-1.yaml", 2, "round in a circle", in_file="circle-3.yaml"),
    Case("into-a-circle.yaml", 1, "circle-a.yaml -> circle-b.yaml -> circle-a.yaml", in_file="circle-b.yaml"),
    Case("extends-directory.yaml", 1, "is a directory"),
    Case("extends-list.yaml", 1, "a list; expected the name"),
    Case("extends-null.yaml", 1, "nothing (null)"),
    Case("inherits-bad-value.yaml", 3, "-1 is too small", in_file="bad-parent.yaml"),
    Case("deep-0.yaml", 1, "more than 8 deep", in_file="deep-8.yaml"),
    Case("unknown-machine-type.yaml", 5, "Did you mean 'a2-highgpu-8g'?"),
    Case("unknown-accelerator.yaml", 5, "Did you mean 'a100'?"),
    Case("accelerator-without-count.yaml", 4, "disagree"),
    Case("machine-type-and-host.yaml", 6, "both machine_type"),
    Case("neither-machine-type-nor-host.yaml", 4, "neither machine_type nor hosted_on"),
    Case("hosted-on-itself.yaml", 4, "round in a circle: loader -> loader"),
    Case("hosted-in-a-circle.yaml", 4, "round in a circle"),
    Case("more-than-the-host-has.yaml", 4, "expected at most 1"),
    Case("hosted-elsewhere.yaml", 4, "is not the zone of its host"),
    Case("slow-machine-out-of-range.yaml", 4, "expected 0 to 0"),
    Case("too-many-ranks.yaml", 5, "16 ranks on a machine with 8 accelerators"),
    Case("no-tier1-network.yaml", 5, "no Tier_1 networking"),
    Case("same-feature-twice.yaml", 5, "appears twice"),
    Case("dlrm-of-two-dims.yaml", 6, "expected one dim"),
    Case("adult-without-path.yaml", 3, "without a path"),
    Case("synthetic-with-path.yaml", 3, "which reads no file"),
    Case("adult-of-26-features.yaml", 4, "expected 8, which data of kind adult has"),
    Case("criteo-of-5-numbers.yaml", 3, "expected 13, which data of kind criteo-tsv has"),
    Case("distinct-batches-of-files.yaml", 3, "expected null"),
    Case("unknown-on-bad-row.yaml", 3, "Did you mean 'skip'?"),
    Case("link-to-nowhere.yaml", 5, "Did you mean 'nn_worker'?"),
    Case("link-without-effect.yaml", 5, "overrides nothing"),
    Case("zone-of-another-region.yaml", 2, "not in the region"),
    Case("unknown-profile.yaml", 3, "Did you mean 'persia-original'?"),
    Case("unknown-emulated-accelerator.yaml", 3, "Did you mean 'a100'?"),
    Case("missing-profile-file.yaml", 3, "no such profile"),
    Case("assumption-about-nothing.yaml", 3, "leads nowhere"),
    Case("assumption-without-source.yaml", 3, "source is missing"),
    # Written by `materialise`: too large to commit, or no text.
    Case("ten-megabytes.yaml", 1, "a scenario has at most 1,048,576"),
    Case("sparse-terabyte.yaml", 1, "a scenario has at most 1,048,576"),
    Case("missing.yaml", 1, "no such file"),
    Case("directory.yaml", 1, "is a directory"),
    Case("pipe.yaml", 1, "is not a regular file"),
    Case("not-utf-8.yaml", 2, "is not UTF-8"),
    Case("utf-16.yaml", 1, "is not UTF-8"),
    Case("nul-byte.yaml", 2, "U+0000"),
    Case("escape-character.yaml", 2, "U+001B"),
    Case("deep-brackets.yaml", 2, "levels deep"),
    Case("deep-dashes.yaml", 1, "levels deep"),
    Case("deep-braces.yaml", 2, "levels deep"),
    Case("many-values.yaml", 4, "more than 20,000 values"),
    Case("many-unknown-keys.yaml", 2, "unknown key"),
    Case("long-key.yaml", 2, "a key of"),
)
# fmt: on


def materialise(folder: Path) -> Path:
    """Fill an empty folder with every case, committed or written here, and return it."""
    for path in sorted(COMMITTED.glob("*.yaml")):
        shutil.copy(path, folder)
    head = b"extends: laptop\n"
    (folder / "ten-megabytes.yaml").write_bytes(head + b"# padding\n" * 1_000_000)
    with (folder / "sparse-terabyte.yaml").open("wb") as file:
        file.truncate(10**12)
    (folder / "directory.yaml").mkdir()
    os.mkfifo(folder / "pipe.yaml")
    (folder / "not-utf-8.yaml").write_bytes(head + b"name: caf\xe9\n")
    (folder / "utf-16.yaml").write_bytes("extends: laptop\n".encode("utf-16"))
    (folder / "nul-byte.yaml").write_bytes(head + b"name: a\0b\n")
    (folder / "escape-character.yaml").write_bytes(head + b"name: a\x1b[31mb\n")
    (folder / "deep-brackets.yaml").write_bytes(head + b"model: " + b"[" * 500_000)
    (folder / "deep-dashes.yaml").write_bytes(b"- " * 500_000)
    (folder / "deep-braces.yaml").write_bytes(head + b"model: " + b"{a: " * 200_000)
    (folder / "many-values.yaml").write_bytes(head + b"model:\n  dense:\n    layers: [" + b"1, " * 300_000 + b"1]\n")
    (folder / "many-unknown-keys.yaml").write_bytes(head + b"".join(b"key%d: 1\n" % number for number in range(9_000)))
    (folder / "long-key.yaml").write_bytes(head + b"? " + b"k" * 900_000 + b"\n: 1\n")
    return folder
