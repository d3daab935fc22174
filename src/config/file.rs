//! The configuration file: TOML, read with the line of every key, so that an error can name it.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Config, Problem, SECTIONS, SETTINGS, Setting, USERS, User};
use crate::suggest;

/// Takes what the file says; everything that is wrong with it goes to `problems`.
pub(super) fn read(config: &mut Config, name: &str, text: &str, problems: &mut Vec<Problem>) {
    let place =
        |at: usize| format!("{name}:{}", 1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count());
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let place = place(error.span().map_or(0, |span| span.start));
            problems.push(Problem { place, message: error.message().to_owned(), hint: None });
            return;
        }
    };
    for (section, value) in root.get_ref() {
        let at = place(section.span().start);
        let section = section.get_ref().as_ref();
        if !SECTIONS.contains(&section) {
            let hint = suggest::hint(section, SECTIONS.iter().copied()).or_else(|| owner(section));
            problems.push(Problem { place: at, message: format!("unknown section [{section}]"), hint });
            continue;
        }
        let DeValue::Table(table) = value.get_ref() else {
            problems.push(Problem {
                place: at,
                message: format!("{section} must be a section: [{section}]"),
                hint: None,
            });
            continue;
        };
        for (key, value) in table {
            let at = place(key.span().start);
            let key = key.get_ref().as_ref();
            if section == "pg" && key == USERS {
                users(config, value, &place, problems);
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.section == section && setting.key == key) else {
                let known = SETTINGS.iter().filter(|setting| setting.section == section).map(|setting| setting.key);
                let hint = suggest::hint(key, known).or_else(|| owner(key));
                problems.push(Problem { place: at, message: format!("unknown key \"{key}\" in [{section}]"), hint });
                continue;
            };
            match plain(value.get_ref()) {
                Some(value) => config.take(setting, &value, &at, problems),
                None => problems.push(Problem {
                    place: at,
                    message: format!("{} must be a string, a number or a boolean", setting.path()),
                    hint: None,
                }),
            }
        }
    }
}

/// A key that stands in another section.
fn owner(key: &str) -> Option<String> {
    let Setting { section, .. } = SETTINGS.iter().find(|setting| setting.key == key)?;
    Some(format!("\"{key}\" belongs to [{section}]"))
}

fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// `[[pg.users]] name = …, password = …`
fn users(
    config: &mut Config,
    value: &Spanned<DeValue<'_>>,
    place: &impl Fn(usize) -> String,
    problems: &mut Vec<Problem>,
) {
    let at = place(value.span().start);
    let DeValue::Array(entries) = value.get_ref() else {
        let message = "pg.users must be a list: [[pg.users]] with name and password".into();
        problems.push(Problem { place: at, message, hint: None });
        return;
    };
    for entry in entries.iter() {
        let DeValue::Table(table) = entry.get_ref() else {
            problems.push(Problem {
                place: at.clone(),
                message: "a user has a name and a password".into(),
                hint: None,
            });
            continue;
        };
        let mut user = User { name: String::new(), secret: String::new() };
        for (key, value) in table {
            let at = place(key.span().start);
            let DeValue::String(text) = value.get_ref() else {
                problems.push(Problem {
                    place: at,
                    message: format!("{} must be a string", key.get_ref()),
                    hint: None,
                });
                continue;
            };
            match key.get_ref().as_ref() {
                "name" => user.name = text.to_string(),
                "password" => user.secret = text.to_string(),
                unknown => problems.push(Problem {
                    place: at,
                    message: format!("unknown key \"{unknown}\" of a user"),
                    hint: suggest::hint(unknown, ["name", "password"]),
                }),
            }
        }
        config.users.push(user);
    }
}
