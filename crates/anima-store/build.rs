//! Compiles the crate again when a migration is added: the macro that embeds them only tracks the
//! files that it saw before.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
