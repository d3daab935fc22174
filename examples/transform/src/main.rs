//! Tidemill with one more transform: `SELECT … FROM cells(TABLE trips, 0.01)`.

mod cells;

fn main() -> std::process::ExitCode {
    tidemill::cli::main_with(tidemill::Transforms::new().with(cells::Cells))
}
