//! The `tidemill` binary.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // Tests stop the real process at the places that the variable FAILPOINTS names.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    tidemill::cli::main()
}
