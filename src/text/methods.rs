//! Methods of Python's strings that templates call and the engine's own list lacks.

use minijinja::value::from_args;
use minijinja::{Error, ErrorKind, State, Value};

/// Calls a method that the value does not have itself.
pub(super) fn unknown_method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(found) = own(text, name, args)
    {
        return found;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

fn own(text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match name {
        "rsplit" => rsplit(text, args),
        "partition" => partition(text, args, |text, at| text.split_once(at), |text| [text, "", ""]),
        "rpartition" => partition(text, args, |text, at| text.rsplit_once(at), |text| ["", "", text]),
        "removeprefix" => one(args).map(|part| text.strip_prefix(part).unwrap_or(text).into()),
        "removesuffix" => one(args).map(|part| text.strip_suffix(part).unwrap_or(text).into()),
        _ => return None,
    })
}

fn one(args: &[Value]) -> Result<&str, Error> {
    from_args::<(&str,)>(args).map(|(text,)| text)
}

/// The pieces between separators, counted from the end; without a separator the words.
fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = most.and_then(|most| usize::try_from(most).ok());
    let mut pieces: Vec<&str> = match separator {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => match most {
            Some(most) => text.rsplitn(most + 1, separator).collect(),
            None => text.rsplit(separator).collect(),
        },
        None => words_from_the_end(text, most),
    };
    pieces.reverse();
    Ok(list(pieces))
}

fn words_from_the_end(text: &str, most: Option<usize>) -> Vec<&str> {
    let (mut pieces, mut left) = (Vec::new(), text.trim_end());
    while !left.is_empty() {
        let cut = left.rfind(char::is_whitespace).filter(|_| most.is_none_or(|most| pieces.len() < most));
        let (before, piece) = match cut {
            Some(at) => {
                let width = left[at..].chars().next().map_or(1, char::len_utf8);
                (&left[..at], &left[at + width..])
            }
            None => ("", left),
        };
        pieces.push(piece);
        left = before.trim_end();
    }
    pieces
}

fn partition<'t>(
    text: &'t str,
    args: &'t [Value],
    cut: impl Fn(&'t str, &'t str) -> Option<(&'t str, &'t str)>,
    missing: impl Fn(&'t str) -> [&'t str; 3],
) -> Result<Value, Error> {
    let at = one(args)?;
    if at.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    let parts = cut(text, at).map(|(before, after)| vec![before, at, after]);
    Ok(list(parts.unwrap_or_else(|| missing(text).to_vec())))
}

fn list(texts: Vec<&str>) -> Value {
    texts.into_iter().map(Value::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_python() {
        let mut environment = minijinja::Environment::new();
        environment.set_unknown_method_callback(unknown_method);
        for (call, expected) in [
            ("'a,b,c'.rsplit(',', 1)", "['a,b', 'c']"),
            ("'a,b,c'.rsplit(',')", "['a', 'b', 'c']"),
            ("' a  b c '.rsplit()", "['a', 'b', 'c']"),
            ("' a  b c '.rsplit(none, 1)", "[' a  b', 'c']"),
            ("'a=b=c'.partition('=')", "['a', '=', 'b=c']"),
            ("'abc'.partition('=')", "['abc', '', '']"),
            ("'a=b=c'.rpartition('=')", "['a=b', '=', 'c']"),
            ("'abc'.rpartition('=')", "['', '', 'abc']"),
            ("['xay'.removeprefix('x'), 'xay'.removesuffix('y')]", "['ay', 'xa']"),
            ("['a b'.split(' ')|length, 'ab'.upper()]", "[2, 'AB']"),
        ] {
            let text = environment.render_str(&format!("{{{{ {call} }}}}"), ()).unwrap();
            assert_eq!(text, expected, "{call}");
        }
        for call in ["'a'.rsplit('')", "'a'.partition('')", "'a'.nothing()", "[1].rsplit()"] {
            assert!(environment.render_str(&format!("{{{{ {call} }}}}"), ()).is_err(), "{call}");
        }
    }
}
