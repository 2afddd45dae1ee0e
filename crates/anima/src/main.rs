//! The gateway program: the command line, and nothing else.
//!
//! What it does is in the library, where tests reach it. The allocator is chosen here, for only a
//! program may choose one.

use std::process::ExitCode;

/// Many small buffers come and go with every request; the system's allocator is slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    anima::cli::main()
}
