use super::{read::position_of, *};

#[test]
fn positions_count_characters_over_lines() {
    assert_eq!(position_of("select é\nfrom x", 2, 6), Some(15));
    assert_eq!(position_of("a", 1, 1), Some(1));
    assert_eq!(position_of("a", 2, 1), None);
    assert_eq!(position_of("a", 0, 0), None);
}

#[test]
fn parser_errors_name_the_token_and_its_place() {
    let sql = "SELECT 1 FRM t";
    let error = crate::parse::parse("SELECT 1 +* 2").unwrap_err();
    assert_eq!(error.sqlstate, "42601");
    assert_eq!(error.message, "syntax error at or near \"*\"");
    assert_eq!(error.position, Some(11));
    assert!(crate::parse::parse(sql).is_err());
    let error = crate::parse::parse("SELECT 1 FROM").unwrap_err();
    assert_eq!(error.message, "syntax error at end of input");
    assert_eq!(error.position, Some(14));
}

#[test]
fn the_nearest_name_is_a_slip_not_a_guess() {
    assert_eq!(nearest("pricee", ["price", "city"].into_iter()), Some("price"));
    assert_eq!(nearest("xyz", ["price", "city"].into_iter()), None);
}

#[test]
fn damaged_segments_are_named() {
    let error = SqlError::from(tidemill_storage::Error::corrupt("/data/7.seg", "footer", "magic", "zeros"));
    assert_eq!(error.sqlstate, "XX001");
    assert!(error.message.contains("/data/7.seg"));
}
