//! The binary: parse, run, exit code.

use std::process::ExitCode;

use canhgac::cli;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => cli::report(&error),
    }
}
