"""Networks that keep the contract of `keras_made.autoregressive`."""
