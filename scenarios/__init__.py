"""Data only: packaged scenarios (`*.yaml`), the catalogue of machines and links (`catalog/`) and calibrated costs (`profiles/`)."""
