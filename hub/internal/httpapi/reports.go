// Reports: figures about certificates, and all of them as a table.

package httpapi

import (
	"bytes"
	"context"
	"encoding/csv"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

const (
	// figuresOf is the time that figures about orders are of.
	figuresOf = 30 * 24 * time.Hour
	// weeksAhead are those whose expiries are counted: a certificate of 90 days ends in the last of them.
	weeksAhead = 14
	mediaCSV   = "text/csv; charset=utf-8"
)

// Figures counts orders.
type Figures interface {
	JobFigures(ctx context.Context, since time.Time) (hub.JobFigures, error)
}

func (s *server) addReports() {
	add(s, operation{
		id: "get-certificate-stats", method: http.MethodGet, path: "/stats/certificates", tag: "overview",
		summary: "Count certificates by state, issuer and week of expiry, and how orders went",
	}, s.certificateStats)
	add(s, operation{
		id: "get-certificate-report", method: http.MethodGet, path: "/reports/certificates.csv", tag: "overview",
		summary: "Export all certificates as a table (CSV, RFC 4180)", media: mediaCSV,
	}, s.certificateReport)
}

func (s *server) certificateStats(ctx context.Context, _ *call, _ *none) (*output[apiv1.CertificateStats], error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now().UTC()
	out := apiv1.CertificateStats{
		AsOf: now, Total: len(snap.Certificates), ByState: map[apiv1.CertificateState]int{}, ByIssuer: map[string]int{}, ByWeek: map[string]int{},
	}
	first := monday(now)
	for week := range weeksAhead {
		out.ByWeek[first.AddDate(0, 0, 7*week).Format(time.DateOnly)] = 0
	}
	orders, err := s.cfg.Data.LatestOrders(ctx)
	if err != nil {
		return nil, err
	}
	for name, wish := range snap.Certificates {
		have := snap.Issued[name]
		out.ByState[s.stateOf(wish, have, orders[name].State)]++
		if have == nil {
			continue
		}
		out.ByIssuer[have.Issuer]++
		if week := monday(have.NotAfter.UTC()).Format(time.DateOnly); !have.NotAfter.Before(now) {
			if _, counted := out.ByWeek[week]; counted {
				out.ByWeek[week]++
			}
		}
	}
	figures, err := s.cfg.Data.JobFigures(ctx, now.Add(-figuresOf))
	if err != nil {
		return nil, err
	}
	out.FailedByClass, out.Renewals = figures.FailedByClass, len(figures.Durations)
	out.MedianSeconds, out.P95Seconds = quantile(figures.Durations, 50), quantile(figures.Durations, 95)
	return &output[apiv1.CertificateStats]{Body: out}, nil
}

// monday is the first day of a time's week.
func monday(t time.Time) time.Time {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
}

// quantile is that of sorted durations, in seconds.
func quantile(sorted []time.Duration, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)].Seconds()
}

type csvOutput struct {
	ContentType string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Body        []byte
}

func (s *server) certificateReport(ctx context.Context, _ *call, _ *none) (*csvOutput, error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	orders, err := s.cfg.Data.LatestOrders(ctx)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	table := csv.NewWriter(&out)
	if err := table.Write([]string{"name", "state", "names", "issuer", "serial", "key_type", "not_before", "not_after", "renew_at", "servers", "last_order", "attempts", "error_class", "order_seconds"}); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(snap.Certificates)) {
		wish, have := snap.Certificates[name], snap.Issued[name]
		row := []string{name, string(s.stateOf(wish, have, orders[name].State)), strings.Join(wish.Names, " "), wish.Issuer, "", wish.KeyType, "", "", "", "", "", "", "", ""}
		if have != nil {
			row[3], row[4], row[5] = have.Issuer, have.Serial, have.KeyType
			row[6], row[7] = have.NotBefore.UTC().Format(time.RFC3339), have.NotAfter.UTC().Format(time.RFC3339)
			row[8] = s.renewAt(wish, have).UTC().Format(time.RFC3339)
		}
		var servers []string
		for _, d := range wish.Deployments {
			servers = append(servers, d.Server+d.Selector)
		}
		row[9] = strings.Join(servers, " ")
		if order, ok := orders[name]; ok {
			row[10], row[11], row[12] = string(order.State), strconv.FormatInt(int64(order.Attempts), 10), order.ErrorClass
			row[13] = strconv.FormatFloat(order.UpdatedAt.Sub(order.CreatedAt).Seconds(), 'f', 0, 64)
		}
		for i := range row {
			row[i] = cell(row[i])
		}
		if err := table.Write(row); err != nil {
			return nil, err
		}
	}
	table.Flush()
	return &csvOutput{mediaCSV, `attachment; filename="certificates.csv"`, out.Bytes()}, table.Error()
}

// cell keeps a program for tables from taking text for a formula.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r*", rune(text[0])) {
		return "'" + text
	}
	return text
}
