"""Keep the files of a day: folders, manifests, local disk and object store."""
