//! Functions that files may call: those of `bake` (docs.docker.com/build/bake/stdlib) that are about texts, numbers and
//! collections, and those that files define.

use std::cell::RefCell;

use base64::Engine as _;
use hcl::eval::{Context, Evaluate, FuncArgs, FuncDef, ParamType};
use regex::Regex;
use serde_json::{Map, Value as Json, json};
use sha2::Digest as _;

use super::file::Function;
use super::{RecipeError, Result, text};

type Answer = std::result::Result<Json, String>;

/// Functions that files define, and what is known where they are called.
struct Defined {
    functions: Vec<(String, Function)>,
    context: Context<'static>,
}

thread_local! {
    // The evaluator takes plain functions only, which know nothing but their arguments.
    static DEFINED: RefCell<Defined> = RefCell::new(Defined { functions: Vec::new(), context: Context::new() });
}

/// How many functions files may define.
const MOST_DEFINED: usize = 32;

/// A plain function for each function that a file may define.
const SLOTS: [fn(FuncArgs) -> std::result::Result<hcl::Value, String>; MOST_DEFINED] = [
    slot::<0>, slot::<1>, slot::<2>, slot::<3>, slot::<4>, slot::<5>, slot::<6>, slot::<7>, slot::<8>,
    slot::<9>, slot::<10>, slot::<11>, slot::<12>, slot::<13>, slot::<14>, slot::<15>, slot::<16>,
    slot::<17>, slot::<18>, slot::<19>, slot::<20>, slot::<21>, slot::<22>, slot::<23>, slot::<24>,
    slot::<25>, slot::<26>, slot::<27>, slot::<28>, slot::<29>, slot::<30>, slot::<31>,
];

/// Declares the functions that there are.
pub(super) fn declare(context: &mut Context<'static>) {
    for (name, function) in KNOWN {
        let any = FuncDef::builder().variadic_param(ParamType::Any);
        context.declare_func(*name, any.build(*function));
    }
}

/// Declares the functions that files define.
pub(super) fn take(context: &mut Context<'static>, functions: &[(String, Function)]) -> Result<()> {
    if functions.len() > MOST_DEFINED {
        return Err(RecipeError(format!("there are more than {MOST_DEFINED} functions")));
    }
    for ((name, _), slot) in functions.iter().zip(SLOTS) {
        let any = FuncDef::builder().variadic_param(ParamType::Any);
        context.declare_func(name.as_str(), any.build(slot));
    }
    DEFINED.with_borrow_mut(|defined| defined.functions = functions.to_vec());
    see(context);
    Ok(())
}

/// Lets these functions see the variables that are declared by now.
pub(super) fn see(context: &Context<'static>) {
    DEFINED.with_borrow_mut(|defined| defined.context = context.clone());
}

fn slot<const N: usize>(args: FuncArgs) -> std::result::Result<hcl::Value, String> {
    let (function, mut context) = DEFINED.with_borrow(|defined| {
        (defined.functions.get(N).map(|(_, function)| function.clone()), defined.context.clone())
    });
    let function = function.ok_or_else(|| "it is not defined".to_owned())?;
    let mut values = args.into_values();
    if values.len() < function.params.len()
        || values.len() > function.params.len() && function.variadic.is_none()
    {
        return Err(format!(
            "{} arguments are needed, and there are {}",
            function.params.len(),
            values.len()
        ));
    }
    let rest = values.split_off(function.params.len());
    for (name, value) in function.params.iter().zip(values) {
        context.declare_var(name.as_str(), value);
    }
    if let Some(name) = &function.variadic {
        context.declare_var(name.as_str(), rest);
    }
    function.result.evaluate(&context).map_err(|error| error.to_string())
}

type Known = (&'static str, fn(FuncArgs) -> std::result::Result<hcl::Value, String>);

/// A function of JSON values among those that the evaluator takes.
macro_rules! known {
    ($($name:literal => $work:expr,)*) => {
        &[$(($name, |args| answer(&args, $work))),*]
    };
}

/// The functions that there are.
const KNOWN: &[Known] = known! {
    "upper" => |args| Ok(word(args, 0)?.to_uppercase().into()),
    "lower" => |args| Ok(word(args, 0)?.to_lowercase().into()),
    "title" => |args| Ok(title(&word(args, 0)?).into()),
    "replace" => |args| Ok(word(args, 0)?.replace(&word(args, 1)?, &word(args, 2)?).into()),
    "regex" => regex_found,
    "regex_replace" => |args| {
        let replacement = word(args, 2)?;
        Ok(pattern(args, 1)?.replace_all(&word(args, 0)?, replacement.as_str()).into_owned().into())
    },
    "regexall" => |args| {
        Ok(pattern(args, 0)?.find_iter(&word(args, 1)?).map(|found| found.as_str().to_owned()).collect())
    },
    "split" => |args| {
        let (separator, text) = (word(args, 0)?, word(args, 1)?);
        Ok(if text.is_empty() { json!([""]) } else { text.split(separator.as_str()).collect() })
    },
    "join" => |args| {
        let parts: Vec<String> = args.iter().skip(1).flat_map(flat).map(|it| text(&it)).collect();
        Ok(parts.join(&word(args, 0)?).into())
    },
    "trim" => |args| {
        let set: Vec<char> = word(args, 1)?.chars().collect();
        Ok(word(args, 0)?.trim_matches(set.as_slice()).into())
    },
    "trimspace" => |args| Ok(word(args, 0)?.trim().into()),
    "chomp" => |args| Ok(word(args, 0)?.trim_end_matches(['\r', '\n']).into()),
    "trimprefix" => |args| {
        let (text, prefix) = (word(args, 0)?, word(args, 1)?);
        Ok(text.strip_prefix(&prefix).unwrap_or(&text).into())
    },
    "trimsuffix" => |args| {
        let (text, suffix) = (word(args, 0)?, word(args, 1)?);
        Ok(text.strip_suffix(&suffix).unwrap_or(&text).into())
    },
    "substr" => |args| {
        let (from, length) = (whole(args, 1)?, whole(args, 2)?);
        let text: Vec<char> = word(args, 0)?.chars().collect();
        let from = if from < 0 { text.len().saturating_sub(usize::try_from(-from).unwrap_or(0)) } else { usize::try_from(from).unwrap_or(0) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(text.into_iter().skip(from).take(length).collect::<String>().into())
    },
    "strlen" => |args| Ok(word(args, 0)?.chars().count().into()),
    "reverse" => |args| Ok(match at(args, 0)? {
        Json::Array(list) => list.iter().rev().cloned().collect(),
        other => text(other).chars().rev().collect::<String>().into(),
    }),
    "indent" => |args| {
        let gap = " ".repeat(usize::try_from(whole(args, 0)?).unwrap_or(0));
        Ok(word(args, 1)?.replace('\n', &format!("\n{gap}")).into())
    },
    "format" => |args| Ok(format(&word(args, 0)?, args.get(1..).unwrap_or_default())?.into()),
    "length" => |args| Ok(match at(args, 0)? {
        Json::Array(list) => list.len().into(),
        Json::Object(map) => map.len().into(),
        other => text(other).chars().count().into(),
    }),
    "contains" => |args| Ok(list(args, 0)?.contains(at(args, 1)?).into()),
    "concat" => |args| Ok(args.iter().flat_map(flat).collect()),
    "flatten" => |args| Ok(flat(at(args, 0)?).iter().flat_map(flat).collect()),
    "compact" => |args| Ok(list(args, 0)?.iter().filter(|it| !text(it).is_empty()).cloned().collect()),
    "distinct" => |args| {
        let mut seen: Vec<Json> = Vec::new();
        list(args, 0)?.iter().for_each(|it| if !seen.contains(it) { seen.push(it.clone()) });
        Ok(seen.into())
    },
    "sort" => |args| {
        let mut words: Vec<String> = list(args, 0)?.iter().map(text).collect();
        words.sort();
        Ok(words.into())
    },
    "slice" => |args| {
        let list = list(args, 0)?;
        let (from, to) = (usize::try_from(whole(args, 1)?).unwrap_or(0), usize::try_from(whole(args, 2)?).unwrap_or(0));
        list.get(from..to).map(|part| part.to_vec().into()).ok_or_else(|| "the list is shorter".to_owned())
    },
    "element" => |args| {
        let list = list(args, 0)?;
        let at = usize::try_from(whole(args, 1)?).unwrap_or(0).checked_rem(list.len());
        at.map(|at| list[at].clone()).ok_or_else(|| "the list is empty".to_owned())
    },
    "index" => |args| Ok(match (at(args, 0)?, at(args, 1)?) {
        (Json::Object(map), key) => map.get(&text(key)).cloned().unwrap_or_default(),
        (it, _) => flat(it).get(usize::try_from(whole(args, 1)?).unwrap_or(usize::MAX)).cloned().unwrap_or_default(),
    }),
    "keys" => |args| Ok(map(args, 0)?.keys().cloned().collect()),
    "values" => |args| Ok(map(args, 0)?.values().cloned().collect()),
    "lookup" => |args| {
        let found = map(args, 0)?.get(&word(args, 1)?).or(args.get(2)).cloned();
        found.ok_or_else(|| "there is no such key".to_owned())
    },
    "merge" => |args| {
        let mut all = Map::new();
        (0..args.len()).try_for_each(|at| map(args, at).map(|it| all.extend(it.clone())))?;
        Ok(all.into())
    },
    "zipmap" => |args| {
        let (keys, values) = (list(args, 0)?, list(args, 1)?);
        Ok(keys.iter().map(text).zip(values.iter().cloned()).collect::<Map<_, _>>().into())
    },
    "range" => |args| {
        let (from, to) = if args.len() == 1 { (0, whole(args, 0)?) } else { (whole(args, 0)?, whole(args, 1)?) };
        Ok((from..to).collect())
    },
    "coalesce" => |args| {
        Ok(args.iter().find(|it| !it.is_null() && it.as_str() != Some("")).cloned().unwrap_or_default())
    },
    "equal" => |args| Ok((at(args, 0)? == at(args, 1)?).into()),
    "notequal" => |args| Ok((at(args, 0)? != at(args, 1)?).into()),
    "and" => |args| Ok(args.iter().all(is_true).into()),
    "or" => |args| Ok(args.iter().any(is_true).into()),
    "not" => |args| Ok((!is_true(at(args, 0)?)).into()),
    "add" => |args| number(real(args, 0)? + real(args, 1)?),
    "subtract" => |args| number(real(args, 0)? - real(args, 1)?),
    "multiply" => |args| number(real(args, 0)? * real(args, 1)?),
    "divide" => |args| number(real(args, 0)? / real(args, 1)?),
    "modulo" => |args| number(real(args, 0)? % real(args, 1)?),
    "negate" => |args| number(-real(args, 0)?),
    "absolute" => |args| number(real(args, 0)?.abs()),
    "ceil" => |args| number(real(args, 0)?.ceil()),
    "floor" => |args| number(real(args, 0)?.floor()),
    "int" => |args| number(real(args, 0)?.trunc()),
    "min" => |args| number((0..args.len()).map(|at| real(args, at)).try_fold(f64::INFINITY, |a, b| Ok::<_, String>(a.min(b?)))?),
    "max" => |args| number((0..args.len()).map(|at| real(args, at)).try_fold(f64::NEG_INFINITY, |a, b| Ok::<_, String>(a.max(b?)))?),
    "greaterthan" => |args| Ok((real(args, 0)? > real(args, 1)?).into()),
    "greaterthanorequalto" => |args| Ok((real(args, 0)? >= real(args, 1)?).into()),
    "lessthan" => |args| Ok((real(args, 0)? < real(args, 1)?).into()),
    "lessthanorequalto" => |args| Ok((real(args, 0)? <= real(args, 1)?).into()),
    "parseint" => |args| {
        let base = u32::try_from(whole(args, 1)?).ok().filter(|base| (2..=36).contains(base));
        let base = base.ok_or_else(|| "a base is from 2 to 36".to_owned())?;
        i64::from_str_radix(&word(args, 0)?, base).map(Json::from).map_err(|error| error.to_string())
    },
    "jsonencode" => |args| Ok(at(args, 0)?.to_string().into()),
    "jsondecode" => |args| serde_json::from_str(&word(args, 0)?).map_err(|error| error.to_string()),
    "base64encode" => |args| Ok(base64::engine::general_purpose::STANDARD.encode(word(args, 0)?).into()),
    "base64decode" => |args| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(word(args, 0)?);
        let bytes = bytes.map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map(Json::from).map_err(|error| error.to_string())
    },
    "sha256" => |args| Ok(engine::id::hex(&sha2::Sha256::digest(word(args, 0)?)).into()),
    "sha512" => |args| Ok(engine::id::hex(&sha2::Sha512::digest(word(args, 0)?)).into()),
    "basename" => |args| Ok(word(args, 0)?.rsplit('/').next().unwrap_or_default().into()),
    "dirname" => |args| Ok(word(args, 0)?.rsplit_once('/').map_or(".", |(before, _)| before).into()),
    "sanitize" => |args| {
        let word = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
        Ok(self::word(args, 0)?.chars().map(word).collect::<String>().into())
    },
    "timestamp" => |_| Ok(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()),
    "formatdate" => |args| Ok(date(&word(args, 0)?, &word(args, 1)?)?.into()),
};

fn answer(args: &FuncArgs, work: fn(&[Json]) -> Answer) -> std::result::Result<hcl::Value, String> {
    let args: Vec<Json> = args.iter().map(|value| serde_json::to_value(value).unwrap_or_default()).collect();
    hcl::to_value(work(&args)?).map_err(|error| error.to_string())
}

fn at(args: &[Json], index: usize) -> std::result::Result<&Json, String> {
    args.get(index).ok_or_else(|| format!("an argument is missing: there are {}", args.len()))
}

fn word(args: &[Json], index: usize) -> std::result::Result<String, String> {
    match at(args, index)? {
        it @ (Json::Array(_) | Json::Object(_)) => Err(format!("{it} is no text")),
        it => Ok(text(it)),
    }
}

fn list(args: &[Json], index: usize) -> std::result::Result<&Vec<Json>, String> {
    let it = at(args, index)?;
    it.as_array().ok_or_else(|| format!("{it} is no list"))
}

fn map(args: &[Json], index: usize) -> std::result::Result<&Map<String, Json>, String> {
    let it = at(args, index)?;
    it.as_object().ok_or_else(|| format!("{it} is no object"))
}

fn real(args: &[Json], index: usize) -> std::result::Result<f64, String> {
    let it = at(args, index)?;
    it.as_f64().or_else(|| it.as_str()?.parse().ok()).ok_or_else(|| format!("{it} is no number"))
}

fn whole(args: &[Json], index: usize) -> std::result::Result<i64, String> {
    let it = at(args, index)?;
    it.as_i64().or_else(|| it.as_str()?.parse().ok()).ok_or_else(|| format!("{it} is no whole number"))
}

/// A number that is whole is shown as one.
fn number(value: f64) -> Answer {
    #[allow(clippy::cast_possible_truncation, reason = "it is whole, and far from the ends")]
    if value.fract() == 0.0 && value.abs() < 9e15 { Ok((value as i64).into()) } else { Ok(json!(value)) }
}

fn is_true(value: &Json) -> bool {
    *value == Json::Bool(true) || value.as_str() == Some("true")
}

fn flat(value: &Json) -> Vec<Json> {
    value.as_array().cloned().unwrap_or_else(|| vec![value.clone()])
}

fn title(text: &str) -> String {
    let mut is_first = true;
    let letter = |c: char| {
        let shown = if is_first { c.to_ascii_uppercase() } else { c };
        is_first = !c.is_alphanumeric();
        shown
    };
    text.chars().map(letter).collect()
}

fn pattern(args: &[Json], index: usize) -> std::result::Result<Regex, String> {
    // Go's classes are those of ASCII.
    let classes = [
        (r"\d", "[0-9]"),
        (r"\D", "[^0-9]"),
        (r"\w", "[0-9A-Za-z_]"),
        (r"\W", "[^0-9A-Za-z_]"),
        (r"\s", r"[\t\n\f\r ]"),
        (r"\S", r"[^\t\n\f\r ]"),
        (r"\b", r"(?-u:\b)"),
    ];
    let mut text = word(args, index)?;
    for (class, letters) in classes {
        text = text.replace(class, letters);
    }
    Regex::new(&text).map_err(|error| error.to_string())
}

/// The whole match, or what its groups caught.
fn regex_found(args: &[Json]) -> Answer {
    let (pattern, text) = (pattern(args, 0)?, word(args, 1)?);
    let found = pattern.captures(&text).ok_or_else(|| format!("{text:?} does not match"))?;
    let caught = |at: usize| found.get(at).map_or(Json::Null, |it| it.as_str().into());
    let names: Vec<&str> = pattern.capture_names().flatten().collect();
    Ok(match (names.is_empty(), found.len()) {
        (false, _) => {
            let caught = |name: &&str| {
                ((*name).to_owned(), found.name(name).map_or(Json::Null, |it| it.as_str().into()))
            };
            names.iter().map(caught).collect::<Map<_, _>>().into()
        }
        (true, 1) => caught(0),
        (true, groups) => (1..groups).map(caught).collect(),
    })
}

/// `%s`, `%d`, `%q`, `%v`, and `%%`.
fn format(form: &str, values: &[Json]) -> std::result::Result<String, String> {
    let (mut shown, mut values, mut letters) = (String::new(), values.iter(), form.chars());
    while let Some(letter) = letters.next() {
        if letter != '%' {
            shown.push(letter);
            continue;
        }
        let mut width = String::new();
        let kind = loop {
            match letters.next() {
                Some(digit) if digit.is_ascii_digit() => width.push(digit),
                Some(kind) => break kind,
                None => return Err("the format ends after %".to_owned()),
            }
        };
        if kind == '%' {
            shown.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| "the format has more verbs than values".to_owned())?;
        let value = match kind {
            'q' => Json::from(text(value)).to_string(),
            's' | 'd' | 'v' | 't' | 'f' | 'g' => text(value),
            other => return Err(format!("the format has %{other}")),
        };
        let least: usize = width.parse().unwrap_or(0);
        let fill = if width.starts_with('0') { "0" } else { " " };
        shown.push_str(&fill.repeat(least.saturating_sub(value.chars().count())));
        shown.push_str(&value);
    }
    Ok(shown)
}

/// A time in words of its own: `YYYY-MM-DD'T'hh:mm:ssZ`.
fn date(form: &str, time: &str) -> std::result::Result<String, String> {
    let time: jiff::Timestamp = time.parse().map_err(|error: jiff::Error| error.to_string())?;
    let (mut shown, mut rest) = (String::new(), form);
    const PARTS: [(&str, &str); 18] = [
        ("YYYY", "%Y"),
        ("YY", "%y"),
        ("MMMM", "%B"),
        ("MMM", "%b"),
        ("MM", "%m"),
        ("M", "%-m"),
        ("DD", "%d"),
        ("D", "%-d"),
        ("EEEE", "%A"),
        ("EEE", "%a"),
        ("hh", "%H"),
        ("HH", "%I"),
        ("mm", "%M"),
        ("ss", "%S"),
        ("AA", "%p"),
        ("ZZZZZ", "+00:00"),
        ("ZZZ", "UTC"),
        ("Z", "Z"),
    ];
    while let Some(letter) = rest.chars().next() {
        if letter == '\'' {
            let (quoted, after) =
                rest[1..].split_once('\'').ok_or_else(|| "a quote is not closed".to_owned())?;
            shown.push_str(quoted);
            rest = after;
        } else if let Some((part, form)) = PARTS.iter().find(|(part, _)| rest.starts_with(part)) {
            shown.push_str(&time.strftime(form).to_string());
            rest = &rest[part.len()..];
        } else if letter.is_ascii_alphabetic() {
            return Err(format!("there is no {letter} in the words of dates"));
        } else {
            shown.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    Ok(shown)
}
