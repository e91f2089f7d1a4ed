//! Django and Flask, with the configuration that their own documentation gives for mod_wsgi.
//!
//! Responsible for: real frameworks doing what people do with them. Called by: `main.rs`.
use crate::harness::{Httpd, Response, Site, paths, site::copy_tree};
use std::path::Path;
use std::process::Command;

fn run(directory: &Path, arguments: &[&str]) {
    let mut python = Command::new(paths::apps_venv().join("bin/python"));
    python.args(arguments).current_dir(directory).env("DJANGO_SUPERUSER_PASSWORD", "secret-9").env_remove("DJANGO_SETTINGS_MODULE");
    let output = python.output().expect("python");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// As `django-admin startproject` makes it, and what its tutorial and deployment guide add.
fn django(site: &Site) {
    let project = site.dir().join("mysite.com");
    std::fs::create_dir(&project).expect("directory");
    run(&project, &["-m", "django", "startproject", "mysite", "."]);
    copy_tree(&paths::repository().join("tests/apps/django"), &project.join("mysite"));
    let settings = project.join("mysite/settings.py");
    let text = std::fs::read_to_string(&settings).expect("settings").replace("ALLOWED_HOSTS = []", "ALLOWED_HOSTS = ['*']");
    let text = text.replace("DEBUG = True", "DEBUG = False") + "\nSTATIC_ROOT = BASE_DIR / 'static'\nDATA_UPLOAD_MAX_MEMORY_SIZE = None\n";
    std::fs::write(&settings, text).expect("settings");
    run(&project, &["manage.py", "migrate", "-v0"]);
    run(&project, &["manage.py", "createsuperuser", "--noinput", "--username", "admin", "--email", "a@example.com"]);
    run(&project, &["manage.py", "collectstatic", "-v0", "--noinput"]);
    // SQLite writes its journal beside the database.
    let open = Command::new("chmod").args(["-R", "a+rwX"]).arg(&project).status().expect("chmod");
    assert!(open.success());
}

/// docs.djangoproject.com/en/5.2/howto/deployment/wsgi/modwsgi/, with the paths put in; nothing else is changed.
const DJANGO: &str = "\
Alias /static/ @dir@/mysite.com/static/\n\
<Directory @dir@/mysite.com/static>\nRequire all granted\n</Directory>\n\
WSGIScriptAlias / @dir@/mysite.com/mysite/wsgi.py process-group=example.com\n\
WSGIPythonHome @venv@\nWSGIPythonPath @dir@/mysite.com\n\
WSGIDaemonProcess example.com python-home=@venv@ python-path=@dir@/mysite.com\n\
WSGIProcessGroup example.com\n\
<Directory @dir@/mysite.com/mysite>\n<Files wsgi.py>\nRequire all granted\n</Files>\n</Directory>\n";

/// What a browser keeps.
#[derive(Default)]
pub struct Browser(Vec<(String, String)>);

impl Browser {
    /// What it sends back.
    pub fn cookie(&self) -> String {
        self.0.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("; ")
    }

    fn take(&mut self, response: &Response) {
        for field in response.all("Set-Cookie") {
            let (name, value) = field.split(';').next().and_then(|c| c.split_once('=')).expect("cookie");
            self.0.retain(|(n, _)| n != name);
            self.0.push((name.into(), value.into()));
        }
    }

    /// GET.
    pub fn get(&mut self, httpd: &Httpd, path: &str) -> Response {
        let response = httpd.request("GET", path).header("Cookie", self.cookie()).send();
        self.take(&response);
        response
    }

    /// POST of a form.
    pub fn post(&mut self, httpd: &Httpd, path: &str, body: String) -> Response {
        let request =
            httpd.request("POST", path).header("Cookie", self.cookie()).header("Content-Type", "application/x-www-form-urlencoded");
        let response = request.body(body).send();
        self.take(&response);
        response
    }
}

both_test!(django_with_its_documented_configuration, |site| {
    django(&site);
    // mod_wsgi has no module for embedded mode here: it runs all in the group, as the documentation recommends.
    let httpd = site.modules("alias mime").head("TypesConfig /etc/mime.types").bare().config(DJANGO).start();
    let mut browser = Browser::default();
    assert_eq!(browser.get(&httpd, "/admin/").status, 302);
    let form = browser.get(&httpd, "/admin/login/?next=/admin/").text();
    let token = form.split("name=\"csrfmiddlewaretoken\" value=\"").nth(1).and_then(|t| t.split('"').next()).expect("token").to_string();
    let login = |password: &str| format!("csrfmiddlewaretoken={token}&username=admin&password={password}&next=/admin/");
    assert!(browser.post(&httpd, "/admin/login/", login("wrong")).text().contains("Please enter the correct"));
    let answer = browser.post(&httpd, "/admin/login/", login("secret-9"));
    assert_eq!((answer.status, answer.header("Location")), (302, Some("/admin/")), "{}", answer.text());
    let page = browser.get(&httpd, "/admin/").text();
    assert!(page.contains("Site administration") && page.contains("Log out"), "{page}");
    // The static file is httpd's own, not Django's.
    let css = httpd.get("/static/admin/css/base.css");
    assert_eq!((css.status, css.header("Content-Type")), (200, Some("text/css")));
    let streamed = httpd.get("/stream/");
    assert!(streamed.complete && streamed.text().lines().count() == 5000);
    let data: Vec<u8> = (0..50u32 << 20).map(|i| (i >> 10) as u8).collect();
    let mut body = b"--frontier\r\nContent-Disposition: form-data; name=\"file\"; filename=\"big.bin\"\r\n\r\n".to_vec();
    body.extend_from_slice(&data);
    body.extend_from_slice(b"\r\n--frontier--\r\n");
    let upload = httpd.request("POST", "/upload/").header("Content-Type", "multipart/form-data; boundary=frontier").body(body).send();
    assert_eq!(upload.status, 200, "{}", upload.text());
    assert_eq!(
        (upload.json()["size"].as_u64(), upload.json()["sum"].as_u64()),
        (Some(50 << 20), Some(data.iter().map(|b| u64::from(*b)).sum()))
    );
    assert_eq!(httpd.get("/no/such/page").status, 404);
});

mpm_test!(django_forked_from_a_template, |site| {
    django(&site);
    let config = DJANGO.replace("WSGIDaemonProcess example.com", "WSGIDaemonProcess example.com preload=On processes=3 threads=2");
    // Else the import waits for the first request, as the documented configuration has no application group.
    let config = config.replace(
        "WSGIScriptAlias / @dir@/mysite.com/mysite/wsgi.py process-group=example.com",
        "WSGIApplicationGroup %{GLOBAL}\nWSGIScriptAlias / @dir@/mysite.com/mysite/wsgi.py process-group=example.com",
    );
    let httpd = site.modules("alias mime").head("TypesConfig /etc/mime.types").bare().config(&config).start();
    crate::harness::until("three workers", || httpd.log().matches("DROVER0230").count() == 3);
    assert_eq!((httpd.log().matches("DROVER0246").count(), httpd.log().matches("DROVER0224").count()), (1, 1));
    let mut browser = Browser::default();
    let form = browser.get(&httpd, "/admin/login/?next=/admin/").text();
    let token = form.split("name=\"csrfmiddlewaretoken\" value=\"").nth(1).and_then(|t| t.split('"').next()).expect("token").to_string();
    let login = format!("csrfmiddlewaretoken={token}&username=admin&password=secret-9&next=/admin/");
    assert_eq!(browser.post(&httpd, "/admin/login/", login).status, 302);
    for _ in 0..10 {
        assert!(browser.get(&httpd, "/admin/").text().contains("Log out"));
    }
});

/// flask.palletsprojects.com (mod_wsgi, as it was until 2.1), with the paths put in.
const FLASK: &str = "\
<VirtualHost *:@port@>\nServerName example.com\n\
WSGIDaemonProcess yourapplication threads=5 python-home=@venv@\n\
WSGIScriptAlias / @apps@/flask/yourapplication.wsgi\n\
<Directory @apps@/flask>\nWSGIProcessGroup yourapplication\nWSGIApplicationGroup %{GLOBAL}\nWSGIScriptReloading On\nRequire all granted\n</Directory>\n\
</VirtualHost>\n";

both_test!(flask_with_its_documented_configuration, |site| {
    let httpd = site.bare().config(FLASK).allow_output().start();
    let mut browser = Browser::default();
    assert_eq!(browser.get(&httpd, "/").text(), "Logged out");
    assert_eq!(browser.post(&httpd, "/login", "name=J%C3%BCrgen".into()).status, 302);
    assert_eq!(browser.get(&httpd, "/").text(), "Hello J\u{fc}rgen");
    let url = browser.get(&httpd, "/url").text();
    assert_eq!(url, format!("http://localhost:{}/login?next=/", httpd.site.port));
    assert_eq!(browser.get(&httpd, "/stream").text(), (0..100).map(|i| format!("row {i}\n")).collect::<String>());
    assert_eq!(httpd.request("POST", "/json").header("Content-Type", "application/json").body("{\"a\": [1, 2]}").send().json()["a"][1], 2);
    assert_eq!(httpd.get("/teapot").status, 418);
    assert_eq!(httpd.get("/boom").status, 500);
    httpd.wait_log("ZeroDivisionError");
});
