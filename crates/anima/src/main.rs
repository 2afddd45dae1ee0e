//! The gateway program: the command line, and nothing else.

use std::process::ExitCode;

/// Many small buffers come and go with every request; the system's allocator is slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    anima::cli::main()
}
