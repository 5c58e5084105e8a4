//! The worker process: one a device, owns the models and advances its panoramas.

fn main() {}
