//! Durations as people read them: the two largest units, fewer as it gets longer.

/// Seconds to `9s`, `2m5s`, `17m`, `3h20m`, `12h`, `2d5h`, `9d`, `2y30d`, `8y`.
pub(super) fn human(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days, years) = (
        seconds / 60,
        seconds / 3600,
        seconds / 86_400,
        seconds / 86_400 / 365,
    );
    let two = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, 'm', seconds % 60, 's')
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, 'd', hours % 24, 'h')
    } else if days < 730 {
        format!("{days}d")
    } else if years < 8 {
        two(years, 'y', days % 365, 'd')
    } else {
        format!("{years}y")
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn units_shrink_as_time_grows() {
        let minute = 60;
        let hour = 60 * minute;
        let day = 24 * hour;
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (125, "2m5s"),
            (120, "2m"),
            (17 * minute, "17m"),
            (179 * minute, "179m"),
            (3 * hour + 20 * minute, "3h20m"),
            (12 * hour, "12h"),
            (2 * day + 5 * hour, "2d5h"),
            (9 * day, "9d"),
            (760 * day, "2y30d"),
            (3000 * day, "8y"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }
}
