//! Points in time as Kubernetes writes them (RFC 3339), to the nanosecond.

/// Nanoseconds since 1970-01-01T00:00:00Z, negative before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i128);

/// Nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

impl Timestamp {
    /// A number of seconds after 1970-01-01T00:00:00Z.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds as i128 * SECOND)
    }

    /// Reads `2006-01-02T15:04:05.999999999+07:00`; `None` for what is no such text, leap seconds included.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once(['T', 't'])?;
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let zone_at = rest.find(['Z', 'z', '+', '-'])?;
        let (time, zone) = rest.split_at_checked(zone_at)?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        let is_real = (1..=12).contains(&month)
            && (1..=days_of(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        if !is_real || !is_digits(fraction) {
            return None;
        }
        // Digits beyond the ninth say nothing that is kept.
        let nanoseconds: i128 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        let offset = match zone.split_at_checked(1)? {
            ("Z" | "z", "") => 0,
            (sign, zone) => {
                let [hours, minutes] = numbers(zone, ':', [2, 2])?;
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let seconds = hours * 3600 + minutes * 60;
                if sign == "+" { seconds } else { -seconds }
            }
        };
        let seconds =
            days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Some(Self(i128::from(seconds) * SECOND + nanoseconds))
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Numbers of so many digits each.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && is_digits(part))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    /// Days before the first of January of a year, counted from the year 0.
    const fn before(year: i64) -> i64 {
        let last = year - 1;
        year * 365 + last.div_euclid(4) - last.div_euclid(100) + last.div_euclid(400)
    }
    before(year) - before(1970) + (1..month).map(|month| days_of(year, month)).sum::<i64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_writes() {
        for (text, seconds, nanoseconds) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2018-01-01T00:00:01Z", 1_514_764_801, 0),
            ("2000-02-29T23:59:59.5Z", 951_868_799, 500_000_000),
            ("2018-01-01T02:30:00.000000001+02:30", 1_514_764_800, 1),
            ("1969-12-31T16:00:00-08:00", 0, 0),
            ("2100-03-01T00:00:00Z", 4_107_542_400, 0),
        ] {
            let expected = Timestamp(Timestamp::from_seconds(seconds).0 + nanoseconds);
            assert_eq!(Timestamp::parse(text), Some(expected), "{text}");
        }
        assert!(Timestamp::parse("0001-01-01T00:00:00Z").unwrap() < Timestamp::default());
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            "today",
            "2018-01-01",
            "2018-01-01T00:00:00",
            "2018-13-01T00:00:00Z",
            "2019-02-29T00:00:00Z",
            "2018-01-01T24:00:00Z",
            "2018-01-01T00:00:00.Z",
            "2018-01-01T00:00:00+2:00",
            "2018-01-01T00:00:00Zé",
            "2018-01-01T00:00:00é",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
