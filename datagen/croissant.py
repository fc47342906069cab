"""A manifest as MLCommons Croissant 1.0 JSON-LD, for dataset search engines and the ``mlcroissant`` reader."""

from __future__ import annotations

import hashlib
from typing import Any

from datagen.manifest import Manifest
from datagen.recipe import describe_arrays

_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/", "citeAs": "cr:citeAs", "conformsTo": "dct:conformsTo", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject",
    "jsonPath": "cr:jsonPath", "key": "cr:key", "recordSet": "cr:recordSet", "source": "cr:source",
}  # fmt: skip


def croissant(manifest: Manifest, file: str | None = None) -> dict[str, Any]:
    """Describe a data set in Croissant.

    The manifest file is the distribution, expected beside the description; its shards, with the samples they hold and the
    digest of each array, are the record set ``shards``, read from that file.

    :param manifest: what to describe
    :param file: name of the manifest file, ``<name>.json`` unless given
    :returns: JSON-LD document that ``mlcroissant.Dataset`` accepts
    """
    recipe, name, text = manifest.plan.recipe, manifest.name, manifest.to_json()
    file = file or f"{name}.json"
    own_licence = manifest.licence.startswith("LicenseRef-")  # SPDX has no page on it
    source = " --source DIRECTORY" if recipe.sources else ""
    columns = {key: ("sc:Integer", key) for key in ("index", "start", "stop")} | {"split": ("sc:Text", "split")}
    columns |= {f"sha256_{array}": ("sc:Text", f"arrays.{array}.sha256") for array in recipe.arrays}
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": (
            f"FDD massive MIMO channel state information: {', '.join(f'{n} {split}' for split, n in recipe.splits.items())} samples of "
            f"{describe_arrays(recipe)}, complex64, in a Zarr v3 store. "
            f"Regenerate and verify it with: datagen regenerate {file} --out {name}.zarr{source}"
        ),
        "license": manifest.licence if own_licence else f"https://spdx.org/licenses/{manifest.licence}.html",
        "url": file,
        "version": f"{recipe.dataset_version}.0.0",
        "datePublished": manifest.created,
        "creator": {"@type": "sc:Organization", "name": f"datagen {manifest.producer.datagen}"},
        "citeAs": "; ".join(manifest.references),
        "distribution": [
            {
                "@type": "cr:FileObject", "@id": "manifest", "name": "manifest", "description": "recipe and fingerprints of every shard",
                "contentUrl": file, "encodingFormat": "application/json", "contentSize": f"{len(text.encode())} B",
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet", "@id": "shards", "name": "shards", "description": "the shards of the store",
                "field": [
                    {
                        "@type": "cr:Field", "@id": f"shards/{column}", "name": column, "dataType": kind,
                        "source": {"fileObject": {"@id": "manifest"}, "extract": {"jsonPath": f"$.shards[*].{path}"}},
                    }
                    for column, (kind, path) in columns.items()
                ],
            }
        ],
    }  # fmt: skip
