use super::*;

#[test]
fn every_definition_can_be_empty_and_static() {
    for definition in definitions::all() {
        let mut rows = rows::Rows::new(definition);
        if let Some(batch) = rows::static_rows(definition).unwrap() {
            assert!(batch.num_rows() > 0, "{}", definition.name);
            rows.keep(batch);
        }
        rows.add([]);
        let batch = rows.finish().unwrap_or_else(|error| panic!("{}: {error:?}", definition.name));
        assert_eq!(batch.schema(), definition.arrow, "{}", definition.name);
    }
}
