// OpenTelemetry's Go SDK, doing the work of tests/bench/peers/README.md: `PROGRAM URL WORK COUNT RATE`, WORK is spans,
// spans.lossless (its batch processor waits where its queue is full), counter (nobody exports it) or log (slog's text
// handler, into nothing).
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	scene = "S2A_MSIL1C_20260101T100031_N0500_R02"
	band  = "B02_10m_jp2_"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func perform(operation func(i int64), finish func()) {
	count := must(strconv.ParseInt(os.Args[3], 10, 64))
	rate := must(strconv.ParseInt(os.Args[4], 10, 64))
	input := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	input.ReadString('\n')
	each := int64(1000)
	if rate != 0 {
		each = rate / 1000
	}
	next := time.Now()
	var spent time.Duration
	for done := int64(0); done < count; {
		if rate != 0 {
			next = next.Add(time.Millisecond)
			time.Sleep(time.Until(next))
		}
		end := min(count, done+each)
		begin := time.Now()
		for ; done < end; done++ {
			operation(done)
		}
		spent += time.Since(begin)
	}
	finish()
	fmt.Printf("recorded %d ns %.1f\n", count, float64(spent.Nanoseconds())/float64(count))
	input.ReadString('\n')
}

func spans(url string, lossless bool) {
	ctx := context.Background()
	exporter := must(otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(url)))
	// Its default queue of 2,048 holds two bursts of a millisecond: this is the room that it needs to lose nothing.
	options := []sdktrace.BatchSpanProcessorOption{sdktrace.WithMaxQueueSize(65536), sdktrace.WithMaxExportBatchSize(4096)}
	if lossless {
		options = append(options, sdktrace.WithBlocking())
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, options...),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "bench"))))
	tracer := provider.Tracer("bench")
	perform(func(i int64) {
		_, span := tracer.Start(ctx, "read_bands", trace.WithAttributes(
			attribute.String("scene", scene), attribute.String("band", band), attribute.Int64("index", i),
			attribute.Int("width", 10980), attribute.Int("offset", 123456789)))
		span.End()
	}, func() {
		provider.ForceFlush(ctx)
		provider.Shutdown(ctx)
	})
}

func counter() {
	ctx := context.Background()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	c := must(provider.Meter("bench").Int64Counter("c"))
	perform(func(i int64) {
		c.Add(ctx, 1, metric.WithAttributes(attribute.String("cluster", "sentinel-2-west"),
			attribute.String("identifier", "tilebox.com/Tile"), attribute.Int64("shard", i&3)))
	}, func() {})
}

func log() {
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	perform(func(i int64) {
		logger.Info("tile read", "cluster", "sentinel-2-west", "identifier", "tilebox.com/Tile", "index", i)
	}, func() {})
}

func main() {
	switch os.Args[2] {
	case "spans", "spans.lossless":
		spans(os.Args[1], os.Args[2] == "spans.lossless")
	case "counter":
		counter()
	case "log":
		log()
	default:
		panic("unknown work " + os.Args[2])
	}
}
