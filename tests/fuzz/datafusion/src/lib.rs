//! What the fuzzed sources use of DataFusion: its sqlparser, and an error type to convert from.

pub mod sql {
    pub use sqlparser;
}

pub mod error {
    #[derive(Debug)]
    pub struct DataFusionError;

    impl std::fmt::Display for DataFusionError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an error of DataFusion")
        }
    }

    impl std::error::Error for DataFusionError {}
}
