//! JSON strings to text.

use crate::decode::number::Misfit;

/// Decodes what stands between the quotes of a string that the scanner has passed, to the end of `out`. Refuses NUL and
/// half surrogate pairs.
pub(super) fn unescape(text: &str, out: &mut String) -> Result<(), Misfit> {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest[at + 1..].chars().next().ok_or(Misfit::Syntax)?;
        rest = &rest[at + 1 + escape.len_utf8()..];
        out.push(match escape {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = hex(&mut rest)?;
                let code = match unit {
                    0xD800..0xDC00 => {
                        rest = rest.strip_prefix("\\u").ok_or(Misfit::Surrogate)?;
                        let low = hex(&mut rest)?;
                        if !(0xDC00..0xE000).contains(&low) {
                            return Err(Misfit::Surrogate);
                        }
                        0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                    0 => return Err(Misfit::Nul),
                    unit => unit,
                };
                char::from_u32(code).ok_or(Misfit::Surrogate)?
            }
            other => other,
        });
    }
    out.push_str(rest);
    Ok(())
}

fn hex(rest: &mut &str) -> Result<u32, Misfit> {
    let digits = rest.get(..4).ok_or(Misfit::Syntax)?;
    let unit = u32::from_str_radix(digits, 16).map_err(|_| Misfit::Syntax)?;
    *rest = &rest[4..];
    Ok(unit)
}
