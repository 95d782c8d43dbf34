//! fastrace, with its OpenTelemetry reporter. A burst is one trace: its root, and local spans below it. Properties are
//! texts, so numbers are rendered, as its users have to.

use std::borrow::Cow;

use fastrace::collector::Config;
use fastrace::prelude::*;
use fastrace_opentelemetry::OpenTelemetryReporter;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use peers::{Work, BAND, SCENE};

fn main() {
    let work = Work::from_arguments();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(work.url.clone())
        .build()
        .expect("exporter");
    let reporter = OpenTelemetryReporter::new(
        exporter,
        Cow::Owned(Resource::builder().with_attributes([KeyValue::new("service.name", "bench")]).build()),
        InstrumentationScope::builder("bench").build(),
    );
    fastrace::set_reporter(reporter, Config::default().report_interval(std::time::Duration::from_millis(100)));
    let scene = SCENE.to_string();
    work.perform(
        |first, n| {
            let root = Span::root("burst", SpanContext::random());
            let _current = root.set_local_parent();
            for i in first..first + n - 1 {
                let _span = LocalSpan::enter_with_local_parent("read_bands").with_properties(|| {
                    [
                        ("scene", scene.clone()),
                        ("band", BAND.to_string()),
                        ("index", i.to_string()),
                        ("width", 10980.to_string()),
                        ("offset", 123456789.to_string()),
                    ]
                });
            }
        },
        fastrace::flush,
    );
}
