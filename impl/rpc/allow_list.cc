// See allow_list.h.
#include "impl/rpc/allow_list.h"

#include <sstream>

namespace gradferry {
namespace {

// Names within aten::, by topic.
constexpr const char* kDefault =
    // elementwise arithmetic
    "abs absolute add addcdiv addcmul ceil clamp clamp_max clamp_min clip copysign cos cosh acos acosh asin asinh atan "
    "atan2 atanh deg2rad digamma div divide erf erfc erfinv exp exp2 expm1 floor floor_divide fmax fmin fmod frac gcd "
    "hypot i0 lcm ldexp lerp lgamma log log10 log1p log2 logaddexp logaddexp2 logit maximum minimum mul multiply "
    "mvlgamma nan_to_num neg negative nextafter polygamma positive pow rad2deg real imag reciprocal remainder round "
    "rsqrt rsub sgn sigmoid sign sin sinc sinh special_erf special_expit special_log1p sqrt square sub subtract tan "
    "tanh true_divide trunc xlogy conj angle conj_physical resolve_conj resolve_neg "
    // comparison, logic, bits
    "all allclose any bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor eq equal "
    "ge "
    "greater greater_equal gt isclose isfinite isinf isnan isneginf isposinf isreal le less less_equal logical_and "
    "logical_not logical_or logical_xor lt ne not_equal signbit where "
    // reductions and statistics
    "amax amin aminmax argmax argmin argsort bincount bucketize corrcoef count_nonzero cov cummax cummin cumprod "
    "cumsum "
    "diff dist frobenius_norm histc kthvalue logcumsumexp logsumexp max mean median min mode msort nanmean nanmedian "
    "nanquantile nansum norm nuclear_norm prod quantile searchsorted sort std std_mean sum topk trace "
    "unique_consecutive "
    "unique_dim _unique2 var var_mean "
    // linear algebra
    "addbmm addmm addmv addr baddbmm bilinear block_diag bmm cartesian_prod cdist chain_matmul cholesky "
    "cholesky_inverse cholesky_solve cross det dot einsum ger inner inverse kron linear linalg_cholesky linalg_cond "
    "linalg_det linalg_eigh linalg_eigvalsh linalg_inv linalg_lstsq linalg_matmul linalg_matrix_norm "
    "linalg_matrix_power linalg_multi_dot linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_svd "
    "linalg_vector_norm logdet lu_solve matmul matrix_exp matrix_power mm mv orgqr outer pdist pinverse qr slogdet svd "
    "tensordot triangular_solve vdot "
    // shapes, indexing, joining
    "adjoint as_strided atleast_1d atleast_2d atleast_3d broadcast_tensors broadcast_to cat chunk clone column_stack "
    "combinations concat contiguous detach diag diag_embed diagflat diagonal diagonal_scatter dsplit dstack expand "
    "expand_as flatten flip fliplr flipud gather hsplit hstack index index_add index_copy index_fill index_put "
    "index_select masked_fill masked_scatter masked_select meshgrid moveaxis movedim mT mH narrow narrow_copy nonzero "
    "nonzero_numpy one_hot pad permute put ravel repeat repeat_interleave reshape reshape_as resolve_conj roll rot90 "
    "row_stack scatter scatter_add scatter_reduce select select_scatter slice slice_scatter split split_with_sizes "
    "squeeze stack swapaxes swapdims t take take_along_dim tensor_split tile transpose tril triu tril_indices "
    "triu_indices unbind unflatten unfold unsqueeze vander view view_as view_as_complex view_as_real vsplit vstack "
    // making tensors, conversion
    "arange empty_like eye full full_like linspace logspace ones ones_like zeros zeros_like scalar_tensor to "
    "to_dense to_sparse type_as coalesce sparse_mask _sparse_sum _sparse_mm sparse_coo_tensor complex polar is_nonzero "
    "item numel size dim bernoulli dropout multinomial normal rand rand_like randint randint_like randn randn_like "
    "randperm "
    // neural networks
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm binary_cross_entropy "
    "binary_cross_entropy_with_logits celu channel_shuffle conv1d conv2d conv3d conv_transpose1d conv_transpose2d "
    "conv_transpose3d convolution cosine_embedding_loss cosine_similarity cross_entropy_loss ctc_loss elu embedding "
    "embedding_bag feature_dropout gelu glu grid_sampler group_norm gru gru_cell hardshrink hardsigmoid hardswish "
    "hardtanh hinge_embedding_loss huber_loss im2col col2im instance_norm kl_div l1_loss layer_norm leaky_relu "
    "log_sigmoid log_softmax lstm lstm_cell margin_ranking_loss max_pool1d max_pool2d max_pool3d mish mse_loss "
    "multi_margin_loss multilabel_margin_loss native_batch_norm native_dropout native_group_norm native_layer_norm "
    "nll_loss nll_loss2d nll_loss_nd pairwise_distance pixel_shuffle pixel_unshuffle poisson_nll_loss prelu relu relu6 "
    "rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell rrelu selu silu smooth_l1_loss soft_margin_loss softmax softplus "
    "softshrink threshold triplet_margin_loss upsample_bicubic2d upsample_bilinear2d upsample_linear1d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d fft_fft fft_ifft fft_rfft fft_irfft "
    "fft_fft2 fft_ifft2 fft_fftn fft_ifftn stft istft";

}  // namespace

OperatorAllowList::OperatorAllowList(const std::vector<std::string>& entries) {
  for (const std::string& entry : entries) {
    if (entry != "default") {
      names_.insert(entry);
      continue;
    }
    std::istringstream words(kDefault);
    for (std::string word; words >> word;) names_.insert("aten::" + word);
  }
}

}  // namespace gradferry
