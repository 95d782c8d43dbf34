//! OpenTelemetry's Rust SDK: batch processor, OTLP over HTTP. `counter` adds to a counter whose exporter discards.

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use opentelemetry_sdk::Resource;
use peers::{Work, BAND, SCENE};

fn spans(work: &Work) {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(work.url.clone())
        .build()
        .expect("exporter");
    // Its default queue of 2,048 holds two bursts of a millisecond: this is the room that it needs to lose nothing.
    let processor = BatchSpanProcessor::builder(exporter)
        .with_batch_config(
            BatchConfigBuilder::default()
                .with_max_queue_size(65_536)
                .with_max_export_batch_size(4_096)
                .build(),
        )
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("bench").build())
        .with_span_processor(processor)
        .build();
    let tracer = provider.tracer("bench");
    let scene = SCENE.to_string();
    work.perform(
        |first, n| {
            for i in first..first + n {
                let mut span = tracer
                    .span_builder("read_bands")
                    .with_attributes([
                        KeyValue::new("scene", scene.clone()),
                        KeyValue::new("band", BAND),
                        KeyValue::new("index", i as i64),
                        KeyValue::new("width", 10980),
                        KeyValue::new("offset", 123456789),
                    ])
                    .start(&tracer);
                span.end();
            }
        },
        || {
            let _ = provider.shutdown();
        },
    );
}

/// Takes what is collected, once a minute, and forgets it.
struct Nothing;

impl PushMetricExporter for Nothing {
    async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
        Ok(())
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: std::time::Duration) -> OTelSdkResult {
        Ok(())
    }
    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn counter(work: &Work) {
    let provider = SdkMeterProvider::builder().with_reader(PeriodicReader::builder(Nothing).build()).build();
    let counter = provider.meter("bench").u64_counter("c").build();
    work.perform(
        |first, n| {
            for i in first..first + n {
                counter.add(
                    1,
                    &[
                        KeyValue::new("cluster", "sentinel-2-west"),
                        KeyValue::new("identifier", "tilebox.com/Tile"),
                        KeyValue::new("shard", (i & 3) as i64),
                    ],
                );
            }
        },
        || {},
    );
}

fn main() {
    let work = Work::from_arguments();
    match work.name.as_str() {
        "spans" => spans(&work),
        "counter" => counter(&work),
        other => panic!("unknown work '{other}'"),
    }
}
