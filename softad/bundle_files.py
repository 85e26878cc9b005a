"""Names of a saved model's two files, for those who only look at the files and need no torch."""

WEIGHTS, DOCUMENT = "weights.safetensors", "bundle.json"
