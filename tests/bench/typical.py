"""The pipeline that scoring is compared with: pandas, scikit-learn and to_sql, written as such things usually are.

It does the same work: all log lines out of the database, windows of five minutes by service, the message as TF-IDF, an
isolation forest of 100 trees, and a prediction for every line back into a table without any key. It has no
ledger, no explanations and no protection from scoring a line twice.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from scipy.sparse import csr_matrix, hstack
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction.text import TfidfVectorizer
from sqlalchemy import Engine, create_engine

COLUMNS = "log_id, ts, level, service, message, response_time_ms, status_code"
FIT_ROWS = 50_000
TERMS = 50


def main() -> None:
    """``python -m tests.bench.typical fit|score FILE``; prints how many rows it took, as JSON."""
    what, file = sys.argv[1:]
    dsn = os.environ["MILLRACE_DSN"].replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(dsn)
    rows = fit(engine, Path(file)) if what == "fit" else score(engine, Path(file))
    print(json.dumps({"rows": rows}))


def fit(engine: Engine, file: Path) -> int:
    """Fits on the first rows, and stores the model."""
    logs = pd.read_sql(f"select {COLUMNS} from millrace.logs order by ts, log_id limit {FIT_ROWS}", engine)  # noqa: S608
    vectorizer = TfidfVectorizer(max_features=TERMS).fit(masked(logs["message"]))
    numbers = measured(logs)
    columns = list(numbers.columns)
    forest = IsolationForest(n_estimators=100, random_state=42).fit(joined(logs, numbers, vectorizer))
    joblib.dump((vectorizer, columns, forest), file)
    return len(logs)


def score(engine: Engine, file: Path) -> int:
    """Scores all rows."""
    vectorizer, columns, forest = joblib.load(file)
    logs = pd.read_sql(f"select {COLUMNS} from millrace.logs order by ts, log_id", engine)  # noqa: S608
    numbers = measured(logs).reindex(columns=columns, fill_value=0)
    raw = -forest.score_samples(joined(logs, numbers, vectorizer))
    predictions = pd.DataFrame(
        {
            "ts": logs["ts"],
            "log_id": logs["log_id"],
            "model_version": 1,
            "score": raw,
            "raw_score": raw,
            "severity": 0,
            "is_anomaly": raw >= 0.6,
        }
    )
    predictions.to_sql("typical_predictions", engine, if_exists="replace", index=False, chunksize=10_000)
    return len(predictions)


def masked(messages: pd.Series[str]) -> pd.Series[str]:
    return messages.str.lower().str.replace(r"\b[0-9a-f-]*\d[0-9a-f.:-]*\b", "num", regex=True)


def measured(logs: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame(index=logs.index)
    out["response_time"] = logs["response_time_ms"].fillna(0)
    out["status_code"] = logs["status_code"].fillna(0)
    out["hour"] = logs["ts"].dt.hour
    out["day"] = logs["ts"].dt.dayofweek
    out["since"] = logs.groupby("service")["ts"].diff().dt.total_seconds().fillna(300)
    logs = logs.assign(error=logs["level"].isin(["ERROR", "CRITICAL"]).astype(float))
    windows = logs.set_index("ts").groupby("service")[["response_time_ms", "error"]].rolling("5min")
    # The groups come one after the other, each in the order of time.
    order = logs.reset_index().groupby("service")["index"].apply(list).explode().astype(int).to_numpy()
    figures: dict[str, Any] = {"mean": windows.mean(), "std": windows.std(), "median": windows.median()}
    for name, figure in figures.items():
        out.loc[order, f"response_{name}"] = figure["response_time_ms"].to_numpy()
    out.loc[order, "error_rate"] = figures["mean"]["error"].to_numpy()
    out.loc[order, "volume"] = windows.count()["error"].to_numpy()
    dummies = pd.get_dummies(logs[["level", "service"]], dtype=float)
    return pd.concat([out, dummies], axis=1).fillna(0)


def joined(logs: pd.DataFrame, numbers: pd.DataFrame, vectorizer: TfidfVectorizer) -> Any:
    text = vectorizer.transform(masked(logs["message"]))
    return hstack([csr_matrix(numbers.to_numpy()), text]).toarray()


if __name__ == "__main__":
    main()
