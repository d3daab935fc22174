//! Tidemill with two more transforms: `SELECT … FROM cells(TABLE trips, 0.01)`, and `SELECT … FROM stays(TABLE trips PARTITION BY id, 'ts', 60)`, which keeps a state of each key.

mod cells;
mod stays;

fn main() -> std::process::ExitCode {
    tidemill::cli::main_with(tidemill::Transforms::new().with(cells::Cells).with(stays::Stays))
}
