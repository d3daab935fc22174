use std::sync::Weak;

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

#[test]
fn relations_that_are_taken_for_empty_are_known_and_have_no_rows() {
    for name in nothing::EMPTY_RELATIONS {
        let definition =
            definitions::find("pg_catalog", name).unwrap_or_else(|| panic!("there is no pg_catalog.{name}"));
        assert!(rows::static_rows(definition).unwrap().is_none(), "{name}");
        let relations = Relations::new(&Weak::new());
        let mut rows = rows::Rows::new(definition);
        relations::fill(&relations, name, &mut rows);
        server::fill(&relations, name, &mut rows);
        assert_eq!(rows.finish().unwrap().num_rows(), 0, "{name}");
    }
}
