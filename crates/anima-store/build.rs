//! Compiles the crate again when a migration is added.
//!
//! Nothing is generated here. The macro that embeds migrations only tracks the files that it saw
//! before, so without this a binary could miss the newest one.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
