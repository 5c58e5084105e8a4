//! The service: inputs, the life of a prediction, the store, dispatch and outputs.
