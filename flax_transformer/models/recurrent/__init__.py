"""The recurrent encoder-decoder that the Transformer replaced, with and without attention."""
