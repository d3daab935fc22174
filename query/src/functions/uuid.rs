//! UUIDs as text: any of the forms PostgreSQL reads, one form that it writes.

/// Canonical lower case with four hyphens. Braces, upper case and hyphens after any group of four digits are read; `None` for anything else.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    let text = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut digits = String::with_capacity(36);
    let mut count = 0;
    let mut may_hyphen = false;
    for c in text.chars() {
        if c == '-' {
            if !may_hyphen || count == 32 {
                return None;
            }
            may_hyphen = false;
            continue;
        }
        if !c.is_ascii_hexdigit() || count == 32 {
            return None;
        }
        if matches!(count, 8 | 12 | 16 | 20) {
            digits.push('-');
        }
        digits.push(c.to_ascii_lowercase());
        count += 1;
        may_hyphen = count % 4 == 0;
    }
    (count == 32 && !text.ends_with('-')).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_one() {
        let one = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for form in [
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(canonical(form).as_deref(), Some(one));
        }
        for bad in [
            "",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0eebc99--9c0b4ef8bb6d6bb9bd380a11",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ] {
            assert_eq!(canonical(bad), None);
        }
    }
}
