//! What optimizer rules that wrap one of DataFusion's have in common.

/// The methods of `OptimizerRule`, but for `rewrite`, of a rule whose first field is the one that it wraps: it stands in that one's place.
macro_rules! wrapped_rule {
    () => {
        fn name(&self) -> &str {
            self.0.name()
        }

        fn supports_rewrite(&self) -> bool {
            true
        }

        fn apply_order(&self) -> Option<ApplyOrder> {
            self.0.apply_order()
        }
    };
}

pub(crate) use wrapped_rule;
