"""The check on the analysis of variance: a mixed-effects logistic model on responses, questions as random effects.

logit P(misaligned) = x' beta + sigma u_g, u_g ~ N(0, 1) for question g. Given beta and sigma the questions are
independent, so the likelihood is a product of one-dimensional integrals; each is taken by adaptive Gauss-Hermite
quadrature around its mode (Pinheiro and Bates 1995; what lme4 does with nAGQ > 1). statsmodels' BinomialBayesMixedGLM
fits the same model by a variational approximation on single responses; the tests compare the two. Runs that share a
setting differ by their seed: standard errors are widened by the square root of the Pearson dispersion between runs,
where that exceeds 1, and an axis is tested by F over the runs' degrees of freedom, since the dispersion is estimated.
Where the search for the maximum ends elsewhere there is no number.
"""

import numpy as np
import pandas as pd
from patsy import dmatrix
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import f as f_distribution

from em_bench.analysis.marginals import AXES, NAMES
from em_bench.analysis.missing import Missing
from em_bench.analysis.runs import counts
from em_bench.records import Record

NODES = 15
FAR = 1e-3  # standard errors: how far from the maximum a search may end
LARGEST = 12.0  # logits: beyond it a rate is 0 or 1 for all purposes, and the likelihood has no maximum


class Term(Record):
    """A level against its axis's first, in logits."""

    axis: str
    level: str
    logit: float
    stderr: float


class Mixed(Record):
    """The fitted model. `f` and `p` test all levels of an axis at once."""

    terms: tuple[Term, ...]
    f: dict[str, float]
    p: dict[str, float]
    residual_df: int
    question_sd: float
    dispersion: float
    runs: int
    responses: int


def mixed_logit(table: pd.DataFrame, axes: tuple[str, ...] = AXES) -> Mixed | Missing:
    """Main effects of the varying axes on the odds of a misaligned response."""
    table = table[table["valued"] > 0]
    varying = [a for a in axes if table[a].nunique() > 1]
    if not varying:
        return Missing(reason="no axis varies")
    hits = table.groupby(varying, observed=True)[["misaligned", "valued"]].sum()
    if hits["misaligned"].sum() in (0, hits["valued"].sum()):
        return Missing(reason=f"all of the {int(hits['valued'].sum())} responses have the same outcome; odds have no estimate")
    for axis in varying:
        by = table.groupby(axis)[["misaligned", "valued"]].sum()
        empty = by[(by["misaligned"] == 0) | (by["misaligned"] == by["valued"])]
        if len(empty):
            return Missing(
                reason=f"{NAMES[axis]} {empty.index[0]}: every response has the same outcome; its odds have no estimate"
            )
    design = dmatrix(" + ".join(f"C({a})" for a in varying), table, return_type="dataframe")
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return Missing(reason=f"the design does not separate {', '.join(varying)}")
    df = len(table) - design.shape[1]
    if df < 1:
        return Missing(reason=f"{len(table)} runs for {design.shape[1]} coefficients: the scatter between runs is not known")
    y, n = counts(table)
    settings, group = np.unique(design.to_numpy(), axis=0, return_inverse=True)
    group = group.ravel()
    pooled_y, pooled_n = (np.stack([v[group == i].sum(0) for i in range(len(settings))]) for v in (y, n))
    if pooled_n.shape[1] < 2:
        return Missing(reason="one question; random effects of questions need several")
    fitted = fit(settings, pooled_y, pooled_n)
    if isinstance(fitted, Missing):
        return fitted
    beta, covariance, sigma, modes = fitted
    expected = expit((design.to_numpy() @ beta)[:, None] + sigma * modes[None, :])
    total, mean = y.sum(1), (n * expected).sum(1)
    spread = (n * expected * (1 - expected)).sum(1)
    dispersion = float(max(((total - mean) ** 2 / spread).sum() / df, 1.0))
    covariance = covariance * dispersion
    terms, f, p = [], {}, {}
    for axis in varying:
        at = [i for i, name in enumerate(design.columns) if name.startswith(f"C({axis})[")]
        for i in at:
            level = design.columns[i].split("[T.", 1)[1].removesuffix("]")
            terms.append(Term(axis=axis, level=level, logit=float(beta[i]), stderr=float(np.sqrt(covariance[i, i]))))
        statistic = float(beta[at] @ np.linalg.solve(covariance[np.ix_(at, at)], beta[at]))
        f[axis] = statistic / len(at)
        p[axis] = float(f_distribution.sf(f[axis], len(at), df))
    return Mixed(
        terms=tuple(terms),
        f=f,
        p=p,
        residual_df=df,
        question_sd=float(sigma),
        dispersion=dispersion,
        runs=len(table),
        responses=int(n.sum()),
    )


def fit(x: np.ndarray, y: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, np.ndarray] | Missing:
    """Maximum likelihood from hits y and trials n [settings, questions] with covariates x [settings, p].

    Returns beta [p], its covariance [p, p] (the inverse observed information, sigma estimated along), sigma, and the
    modes of the random effects [questions].
    """
    p = x.shape[1]

    def negative(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = log_likelihood(x, y, n, theta[:p], np.exp(theta[p]))
        gradient[p] *= np.exp(theta[p])
        return -value, -gradient

    start = np.zeros(p + 1)
    overall = y.sum() / n.sum()
    start[0], start[p] = np.log(overall / (1 - overall)), np.log(0.5)
    bounds = [(-3 * LARGEST, 3 * LARGEST)] * p + [(np.log(1e-3), np.log(20))]
    found = minimize(
        negative,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-6},
    )
    theta = found.x
    if np.abs(x @ theta[:p]).max() > LARGEST:
        return Missing(reason="a setting has (nearly) no or only misaligned responses; its odds have no estimate")
    information = np.empty((p + 1, p + 1))
    for i in range(p + 1):
        h = 1e-4 * max(1.0, abs(theta[i]))
        up, down = theta.copy(), theta.copy()
        up[i], down[i] = up[i] + h, down[i] - h
        information[i] = (negative(up)[1] - negative(down)[1]) / (2 * h)
    information = (information + information.T) / 2
    free = [*range(p)] if theta[p] <= bounds[p][0] + 1e-6 else [*range(p + 1)]  # sigma at its bound is fixed there
    information, slope = information[np.ix_(free, free)], negative(theta)[1][free]
    if np.linalg.eigvalsh(information)[0] <= 0 or slope @ np.linalg.solve(information, slope) > FAR**2:
        return Missing(reason=f"the fit did not converge ({found.message.strip().rstrip('.').lower()})")
    covariance = np.linalg.inv(information)[:p, :p]
    sigma = float(np.exp(theta[p]))
    return theta[:p], covariance, sigma, modes(x @ theta[:p], y, n, sigma)[0]


def modes(eta: np.ndarray, y: np.ndarray, n: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each question's integrand log p(y | u) - u^2 / 2 is largest, [questions], and minus its curvature."""
    u = np.zeros(y.shape[1])
    for _ in range(50):
        q = expit(eta[:, None] + sigma * u)
        slope = sigma * (y - n * q).sum(0) - u
        curvature = sigma**2 * (n * q * (1 - q)).sum(0) + 1
        step = np.clip(slope / curvature, -1, 1)
        u = u + step
        if np.abs(step).max() < 1e-10:
            break
    q = expit(eta[:, None] + sigma * u)
    return u, sigma**2 * (n * q * (1 - q)).sum(0) + 1


def log_likelihood(
    x: np.ndarray, y: np.ndarray, n: np.ndarray, beta: np.ndarray, sigma: float, nodes: int = NODES
) -> tuple[float, np.ndarray]:
    """The marginal log likelihood without its binomial coefficients, and its gradient for (beta, sigma) [p + 1]."""
    eta = x @ beta
    centre, curvature = modes(eta, y, n, sigma)
    scale = 1 / np.sqrt(curvature)
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    logs, slopes_x, slopes_s = [], [], []
    for zk, wk in zip(z, w, strict=True):
        u = centre + scale * zk
        logit = eta[:, None] + sigma * u
        inner = (y * log_expit(logit) + (n - y) * log_expit(-logit)).sum(0)
        logs.append(np.log(wk) + inner - u * u / 2 + zk * zk / 2 + np.log(scale) - np.log(2 * np.pi) / 2)
        residual = y - n * expit(logit)
        slopes_x.append(x.T @ residual)
        slopes_s.append(u * residual.sum(0))
    terms = np.array(logs)
    top = terms.max(0)
    weights = np.exp(terms - top)
    total = weights.sum(0)
    weights /= total
    gradient = np.append(np.einsum("kq,kpq->p", weights, np.array(slopes_x)), np.einsum("kq,kq->", weights, np.array(slopes_s)))
    return float((top + np.log(total)).sum()), gradient
