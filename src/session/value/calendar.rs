//! Days, months and microseconds on the proleptic Gregorian calendar, over the whole range of an i64; and the session's time zone.

use chrono::{NaiveDateTime, Offset, TimeZone as _, offset::LocalResult};

pub const DAY_US: i64 = 86_400_000_000;
/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
pub const EPOCH_2000_DAYS: i64 = 10_957;
pub const EPOCH_2000_US: i64 = EPOCH_2000_DAYS * DAY_US;

/// Year (0 is 1 BC), month 1 to 12, day of the month, of a day counted from 1970-01-01.
pub fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day counted from 1970-01-01; `None` for a date that is none.
pub fn days(year: i64, month: u32, day: u32) -> Option<i64> {
    if !(1..=12).contains(&month)
        || day == 0
        || day > month_length(year, month)
        || !(-300_000..=300_000).contains(&year)
    {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let mp = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * mp + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn month_length(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The time zone in which TIMESTAMPTZ is shown and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    Named(chrono_tz::Tz),
    /// Seconds east of Greenwich.
    Fixed(i32),
}

impl Zone {
    pub const UTC: Self = Self::Fixed(0);

    /// Understands names of the time zone database in any case, `UTC`, and offsets. As in PostgreSQL, a bare offset (`+2`, `-03:30`, `2`)
    /// counts east, one with a name before it (`UTC+2`, `<+02>-02`) counts west.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        if ["utc", "gmt", "z", "zulu", "default"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Some(Self::UTC);
        }
        if let Some(offset) = parse_offset(name) {
            return Some(Self::Fixed(offset));
        }
        if let Some((_, offset)) = name.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            return parse_offset(offset).map(|offset| Self::Fixed(-offset));
        }
        if let Ok(zone) = name.parse::<chrono_tz::Tz>() {
            return Some(Self::Named(zone));
        }
        if let Some(zone) = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name)) {
            return Some(Self::Named(*zone));
        }
        let digits = name.find(|c: char| !c.is_ascii_alphabetic())?;
        if digits < 3 {
            return None;
        }
        parse_offset(&name[digits..]).map(|offset| Self::Fixed(-offset))
    }

    /// Seconds east of Greenwich at a moment, microseconds since 1970 UTC.
    pub fn offset_at(self, utc_us: i64) -> i32 {
        match self {
            Self::Fixed(offset) => offset,
            Self::Named(zone) => match chrono::DateTime::from_timestamp(utc_us.div_euclid(1_000_000), 0) {
                Some(moment) => zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc(),
                None => 0,
            },
        }
    }

    /// The moment at which clocks of the zone show `local_us`. Of two such moments the one in standard time, as PostgreSQL takes it; a time
    /// that clocks skipped is read with the offset before the jump.
    pub fn to_utc(self, local_us: i64) -> Option<i64> {
        let offset = match self {
            Self::Fixed(offset) => offset,
            Self::Named(zone) => {
                let local: NaiveDateTime =
                    chrono::DateTime::from_timestamp(local_us.div_euclid(1_000_000), 0)?.naive_utc();
                match zone.offset_from_local_datetime(&local) {
                    LocalResult::Single(offset) => offset.fix().local_minus_utc(),
                    LocalResult::Ambiguous(a, b) => a.fix().local_minus_utc().min(b.fix().local_minus_utc()),
                    LocalResult::None => self.offset_at(local_us.checked_sub(DAY_US)?),
                }
            }
        };
        local_us.checked_sub(i64::from(offset) * 1_000_000)
    }
}

/// `+hh`, `+hhmm`, `+hh:mm`, `+hh:mm:ss`, the sign optional: seconds.
pub fn parse_offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let number = |text: &str| -> Option<i32> {
        if text.is_empty() || text.len() > 2 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        text.parse().ok()
    };
    let (hours, minutes, seconds) = if digits.contains(':') {
        let mut parts = digits.split(':');
        let hours = number(parts.next()?)?;
        let minutes = number(parts.next()?)?;
        let seconds = parts.next().map_or(Some(0), number)?;
        if parts.next().is_some() {
            return None;
        }
        (hours, minutes, seconds)
    } else if digits.len() == 4 && digits.is_ascii() {
        (number(&digits[..2])?, number(&digits[2..])?, 0)
    } else {
        (number(digits)?, 0, 0)
    };
    (hours <= 15 && minutes < 60 && seconds < 60).then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}
