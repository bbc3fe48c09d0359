use super::*;

const FILE: &str = r#"
variable "TAG" { default = "latest" }
variable "REPO" { default = "example.org/${TEAM}" }
variable "TEAM" { default = "us" }
variable "DEBUG" { default = false }
variable "VERSIONS" { default = ["1", "2"] }
prefix = "p-"

function "tag" {
  params = [name]
  result = ["${REPO}/${name}:${TAG}"]
}

group "default" { targets = ["app", "web"] }

target "_common" {
  args = { A = "1", B = "2" }
  platforms = ["linux/amd64"]
  labels = { "org.made-by" = upper("me") }
}

target "app" {
  inherits = ["_common"]
  context = "./app"
  args = { B = "3", D = DEBUG ? "yes" : "no" }
  tags = tag("app")
  contexts = { base = "target:base" }
}

target "base" {
  dockerfile-inline = <<EOT
FROM box
EOT
}

target "web" {
  matrix = { v = VERSIONS }
  name = "web-${v}"
  tags = ["${prefix}${target.app.tags[0]}-${v}"]
  cache-to = [{ type = "registry", ref = "r/c:${v}" }]
  output = ["type=image,push=false"]
}
"#;

fn recipe(files: &[(&str, Form)], environment: &[(&str, &str)]) -> Result<Recipe> {
    let files =
        files.iter().map(|(text, form)| Contents::parse(text, *form, "file")).collect::<Result<_>>()?;
    let said: BTreeMap<&str, &str> = environment.iter().copied().collect();
    Recipe::of(files, &|name| said.get(name).map(|it| (*it).to_owned()))
}

fn chosen(environment: &[(&str, &str)], names: &[&str], changes: &[&str]) -> Json {
    let recipe = recipe(&[(FILE, Form::Hcl)], environment).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let changes: Vec<Change> = changes.iter().map(|text| text.parse().unwrap()).collect();
    recipe.chosen(&names, &changes).unwrap().shown()
}

#[test]
fn targets_inherit_and_use_variables_functions_and_each_other() {
    let shown = chosen(&[("TAG", "v2"), ("DEBUG", "1")], &[], &[]);
    let groups =
        json!({ "default": { "targets": ["app", "web"] }, "web": { "targets": ["web-1", "web-2"] } });
    assert_eq!(shown["group"], groups);
    let app = &shown["target"]["app"];
    assert_eq!(app["args"], json!({ "A": "1", "B": "3", "D": "yes" }));
    assert_eq!(app["tags"], json!(["example.org/us/app:v2"]));
    assert_eq!(app["labels"], json!({ "org.made-by": "ME" }));
    assert_eq!((&app["platforms"], &app["dockerfile"]), (&json!(["linux/amd64"]), &json!("Dockerfile")));
    assert_eq!(shown["target"]["base"]["dockerfile-inline"], "FROM box\n");
    assert_eq!(shown["target"]["web-2"]["tags"], json!(["p-example.org/us/app:v2-2"]));
    let names: Vec<&String> = shown["target"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["app", "base", "web-1", "web-2"]);
    let one = chosen(&[("VERSIONS", "7")], &["web"], &[]);
    assert_eq!(one["target"].as_object().unwrap().keys().collect::<Vec<_>>(), ["web-7"]);
}

#[test]
fn changes_of_the_command_line_come_last() {
    let changes =
        ["*.args.A=9", "app.tags=x", "app.tags=y", "web-*.platform=linux/arm64", "app.no-cache=true"];
    let shown = chosen(&[], &[], &changes);
    assert_eq!(shown["target"]["app"]["args"]["A"], "9");
    assert_eq!(shown["target"]["base"]["args"]["A"], "9");
    assert_eq!(shown["target"]["app"]["tags"], json!(["x", "y"]));
    assert_eq!(shown["target"]["web-1"]["platforms"], json!(["linux/arm64"]));
    assert_eq!(shown["target"]["app"]["no-cache"], true);
    assert_eq!(chosen(&[], &["app"], &["app.tags+=z"])["target"]["app"]["tags"].as_array().unwrap().len(), 2);
    for wrong in ["app", "app.tags", "app.args=1", "app.what=1"] {
        assert!(wrong.parse::<Change>().is_err(), "{wrong}");
    }
}

#[test]
fn later_files_and_json_add_to_targets() {
    let more = r#"{
      "variable": {"TAG": {"default": "json"}},
      "target": {"app": {"args": {"E": "${TAG}!"}, "tags": ["only"]}, "new": {"inherits": ["app"]}}
    }"#;
    let recipe = recipe(&[(FILE, Form::Hcl), (more, Form::Json)], &[]).unwrap();
    let shown = recipe.chosen(&["new".to_owned()], &[]).unwrap().shown();
    let new = &shown["target"]["new"];
    assert_eq!(new["args"], json!({ "A": "1", "B": "3", "D": "no", "E": "json!" }));
    assert_eq!((&new["tags"], &new["context"]), (&json!(["only"]), &json!("./app")));
    let error = recipe.chosen(&["nwe".to_owned()], &[]).unwrap_err().to_string();
    assert!(error.starts_with("failed to find target nwe; there are _common, app"), "{error}");
}

#[test]
fn mistakes_are_told() {
    for (text, wanted) in [
        ("target \"a\" { tgas = [] }", "there is no attribute tgas"),
        ("target \"a\" { tags = [WHAT] }", "WHAT"),
        ("target \"a\" { tags = [what(1)] }", "what"),
        ("target \"a\" {", "file: "),
        ("targets \"a\" {}", "there is no block targets"),
        ("target \"a\" { matrix = { v = [\"x\"] } }", "needs a name"),
        (
            "variable \"V\" {\n default = \"x\"\n validation {\n condition = V == \"y\"\n error_message = \"not y\"\n }\n}",
            "not y",
        ),
    ] {
        let error = recipe(&[(text, Form::Hcl)], &[]).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let around = "target \"a\" { inherits = [\"b\"] }\ntarget \"b\" { inherits = [\"a\"] }";
    let error = recipe(&[(around, Form::Hcl)], &[]).unwrap().chosen(&["a".to_owned()], &[]).unwrap_err();
    assert!(error.to_string().contains("inherits from itself"), "{error}");
}

#[test]
fn a_target_is_a_call_of_build() {
    let recipe = recipe(&[(FILE, Form::Hcl)], &[]).unwrap();
    let chosen = recipe.chosen(&[], &[]).unwrap();
    let names = BTreeMap::from([("base".to_owned(), "bake.local/base:1".to_owned())]);
    let order = |name: &str, wishes: &Wishes| {
        let order =
            Order::of(&chosen.targets[name], names.get(name).map(String::as_str), &names, wishes).unwrap();
        (order.words.join(" "), order.input)
    };
    assert_eq!(
        order("app", &Wishes::default()).0,
        "build --build-context base=docker-image://bake.local/base:1 --build-arg A=1 --build-arg B=3 --build-arg D=no \
         --label org.made-by=ME --tag example.org/us/app:latest --platform linux/amd64 ./app"
    );
    let wishes = Wishes {
        push: true,
        no_cache: true,
        flags: vec!["--progress=plain".to_owned()],
        ..Wishes::default()
    };
    assert_eq!(
        order("base", &wishes),
        (
            "build --file - --output type=registry --output type=image,name=bake.local/base:1 --no-cache \
             --progress=plain ."
                .to_owned(),
            Some("FROM box\n".to_owned())
        )
    );
    assert_eq!(
        order("web-1", &wishes).0,
        "build --tag p-example.org/us/app:latest-1 --cache-to type=registry,ref=r/c:1 --output type=image,push=false \
         --no-cache --progress=plain ."
    );
}

#[test]
fn functions_do_what_they_are_called() {
    let value = |text: &str| {
        let file = format!("target \"t\" {{ args = {{ V = {text} }} }}");
        let recipe = recipe(&[(&file, Form::Hcl)], &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
        recipe.targets["t"]["args"]["V"].clone()
    };
    for (text, wanted) in [
        ("replace(\"a-b\", \"-\", \"_\")", json!("a_b")),
        ("join(\",\", split(\".\", \"1.2\"))", json!("1,2")),
        ("format(\"%s-%03d\", \"a\", 7)", json!("a-007")),
        ("regex_replace(\"v1.2.3\", \"^v([0-9]+).*\", \"$1\")", json!("1")),
        ("regex(\"^v?(\\\\d+)[.](\\\\w+)\", \"v1.b2\")", json!(["1", "b2"])),
        ("coalesce(\"\", null, \"x\")", json!("x")),
        ("add(1, 2)", json!(3)),
        ("divide(1, 2)", json!(0.5)),
        ("and(true, not(false))", json!(true)),
        ("substr(\"abcdef\", 0, 3)", json!("abc")),
        ("substr(\"abcdef\", -2, 2)", json!("ef")),
        ("lookup({ a = 1 }, \"b\", 2)", json!(2)),
        ("length([1, 2])", json!(2)),
        ("sanitize(\"a/b:c\")", json!("a_b_c")),
        ("formatdate(\"YYYY-MM-DD'T'hh:mm\", \"2026-01-02T03:04:05Z\")", json!("2026-01-02T03:04")),
        ("[for v in [1, 2] : v * 2]", json!([2, 4])),
        ("\"a\" == \"a\" ? \"same\" : \"other\"", json!("same")),
        ("equal(\"\", \"\") ? title(\"one two\") : 1", json!("One Two")),
    ] {
        assert_eq!(value(text), wanted, "{text}");
    }
}
