//! From a text to its words.

/// Words of more bytes are left out.
pub const WORD_BYTES_MAX: usize = 2046;

/// Calls `each` with the words of a text, in lower case, and their places, from 1 on. A word is a run of letters, digits and the marks
/// on them, in any script.
pub fn each_word(text: &str, mut each: impl FnMut(&str, u32)) {
    if text.is_ascii() {
        return each_ascii_word(text, each);
    }
    let bytes = text.as_bytes();
    let (mut at, mut place) = (0, 0u32);
    let mut word = String::with_capacity(64);
    loop {
        let mut ends = true;
        match bytes.get(at) {
            Some(byte) if byte.is_ascii() => {
                at += 1;
                if byte.is_ascii_alphanumeric() {
                    word.push(byte.to_ascii_lowercase() as char);
                    ends = false;
                }
            }
            Some(_) => {
                let Some(character) = text[at..].chars().next() else { return };
                at += character.len_utf8();
                if is_of_word(character) {
                    word.extend(character.to_lowercase());
                    ends = false;
                }
            }
            None => at += 1,
        }
        if ends {
            if !word.is_empty() && word.len() <= WORD_BYTES_MAX {
                place = place.saturating_add(1);
                each(&word, place);
            }
            word.clear();
            if at > bytes.len() {
                return;
            }
        }
    }
}

/// The same of a text that is all ASCII: words in lower case are given as they stand there.
fn each_ascii_word(text: &str, mut each: impl FnMut(&str, u32)) {
    let mut lower = String::new();
    let words = text.split(|character: char| !character.is_ascii_alphanumeric());
    for (word, place) in words.filter(|word| !word.is_empty() && word.len() <= WORD_BYTES_MAX).zip(1..=u32::MAX) {
        if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower.clear();
            lower.push_str(word);
            lower.make_ascii_lowercase();
            each(&lower, place);
        } else {
            each(word, place);
        }
    }
}

/// Marks that are put on letters are no letters by themselves.
fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '\u{300}'..='\u{36f}')
}
